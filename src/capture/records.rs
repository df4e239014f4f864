//! How is an event written down until it is folded?
//!
//! A record is the place of the event, then its flags, the last of which is below [`TAGGED`]. Behind them stands its
//! tag, if it has one, and how long that is, added to [`TAGGED`]. So an event without a tag takes no more than its
//! flags.

use crate::capture::entry::{self, Key};
use crate::pg::groups::Groups;
use talkmeter_engine::event::{LONGEST_TAG, Tag};

const TAGGED: u8 = 4;

const _: () = assert!(LONGEST_TAG + TAGGED as usize <= u8::MAX as usize);

/// Adds the record of an event to those of its conversation.
pub fn push(events: &mut Groups, conversation: Key, place: &[u8], flags: &[u8], tag: Option<&Tag>) {
    let key = entry::key_bytes(conversation);
    match tag {
        None => events.push(&key, &[place, flags]),
        Some(tag) => events.push(&key, &[place, flags, tag.as_bytes(), &[TAGGED + tag.len() as u8]]),
    }
}

/// The place, the flags and the tag of a record.
pub fn read<const FLAGS: usize>(record: &[u8]) -> (&[u8], &[u8; FLAGS], Option<&str>) {
    let (record, tag) = match record.split_last() {
        Some((last, before)) if *last >= TAGGED => {
            let (record, tag) = before.split_at(before.len() - usize::from(last - TAGGED));
            (record, Some(std::str::from_utf8(tag).expect("a tag is text")))
        }
        _ => (record, None),
    };
    let (place, flags) = record.split_last_chunk().expect("a record has its flags");
    (place, flags, tag)
}
