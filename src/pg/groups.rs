//! Where do the records of many groups wait until they are read group by group? In memory, and in a temporary file what
//! is more than that.
//!
//! The key of a group is kept once, not with each record, and records are not sorted but put to their group: there they
//! have mostly come in their order.

use crate::pg::limit::heed_cancel;
use crate::pg::memory::{collected, room};
use crate::pg::temporary::TempFile;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;
use std::ops::Range;

/// Bytes kept in memory before they are written to the file.
const IN_MEMORY: usize = 8 << 20;
/// Bytes that are written at once, and those of a run that are read at once.
const WINDOW: usize = 64 << 10;

/// Records of groups.
#[derive(Clone)]
pub struct Groups {
    memory: Kept,
    runs: Vec<Run>,
    file: TempFile,
}

/// Records that lie in the file, in order: of each group the length of its key in four bytes, the key, and how many
/// records it has in four; of each record its number in the run and its length, in four each, and its bytes.
#[derive(Clone)]
struct Run {
    begin: u64,
    end: u64,
    groups: usize,
    /// How many records were pushed before the first one of the run.
    before: u64,
    /// Those of a number below this one count.
    count: u32,
}

impl Default for Groups {
    /// Groups for the work of the moment.
    fn default() -> Groups {
        Groups::in_file(TempFile::of_moment())
    }
}

impl Groups {
    /// Groups that live until the transaction ends, whatever becomes of its subtransactions.
    pub fn of_transaction() -> Groups {
        Groups::in_file(TempFile::of_transaction())
    }

    fn in_file(file: TempFile) -> Groups {
        Groups { memory: Kept::default(), runs: Vec::new(), file }
    }

    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// How many records there are.
    pub fn count(&self) -> u64 {
        self.spilled() + self.memory.records.len() as u64
    }

    /// How many groups there are, or more: one that is in several runs counts for each.
    pub fn most_groups(&self) -> usize {
        self.runs.iter().map(|run| run.groups).sum::<usize>() + self.memory.keys.ends.len()
    }

    fn spilled(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.before + u64::from(run.count))
    }

    /// Adds a record to a group; of both the bytes come in parts.
    pub fn push(&mut self, key: &[&[u8]], record: &[&[u8]]) {
        self.memory.push(key, record);
        if self.memory.size() > IN_MEMORY {
            self.spill();
        }
    }

    /// Forgets all records but the first ones.
    pub fn truncate(&mut self, count: u64) {
        let spilled = self.spilled();
        if count >= spilled {
            return self.memory.truncate((count - spilled) as usize);
        }
        self.memory.clear();
        self.runs.retain(|run| run.before < count);
        if let Some(last) = self.runs.last_mut() {
            last.count = (count - last.before) as u32;
        }
    }

    /// Gives the temporary file back.
    pub fn close(&mut self) {
        self.file.close();
        (self.memory, self.runs) = (Kept::default(), Vec::new());
    }

    fn spill(&mut self) {
        let begin = self.runs.last().map_or(0, |run| run.end);
        let mut writer = Writer { file: &mut self.file, end: begin, buffer: Vec::new() };
        let order = self.memory.order();
        for group in self.memory.groups(&order) {
            heed_cancel();
            let key = self.memory.key(group[0]);
            writer.number(key.len());
            writer.bytes(key);
            writer.number(group.len());
            for index in group {
                let record = self.memory.record(*index);
                writer.number(*index as usize);
                writer.number(record.len());
                writer.bytes(record);
            }
        }
        let end = writer.flushed();
        let groups = self.memory.keys.ends.len();
        self.runs.push(Run { begin, end, groups, before: self.spilled(), count: order.len() as u32 });
        self.memory.clear();
    }

    /// Gives each record in turn with the key of its group, in the order in which they were pushed. A cancel ends it.
    pub fn for_each(&self, mut each: impl FnMut(&[u8], &[u8])) {
        self.runs.iter().for_each(|run| self.for_each_of(run, &mut each));
        for index in 0..self.memory.records.len() as u32 {
            heed_cancel();
            each(self.memory.key(index), self.memory.record(index));
        }
    }

    fn for_each_of(&self, run: &Run, each: &mut dyn FnMut(&[u8], &[u8])) {
        let (mut keys, mut bytes) = (Vec::<u8>::new(), Vec::<u8>::new());
        let mut found: Vec<(u32, Range<u32>, Range<u32>)> = Vec::new();
        let mut reader = Reader::of(run, &self.file);
        let mut key = 0..0;
        while reader.has_record {
            heed_cancel();
            if reader.begins {
                key = appended(&mut keys, &reader.key);
            }
            let record = appended(&mut bytes, reader.record());
            room(&mut found, 1);
            found.push((reader.number, key.clone(), record));
            reader.advance();
        }
        found.sort_unstable_by_key(|(number, ..)| *number);
        for (_, key, record) in &found {
            heed_cancel();
            each(part(&keys, key), part(&bytes, record));
        }
    }

    /// The records in the order of the keys of their groups, and of their bytes within a group.
    pub fn ordered(&self) -> Ordered<'_> {
        let in_memory = Records::Memory { kept: &self.memory, order: self.memory.order(), at: 0 };
        let runs = self.runs.iter().map(|run| Records::Run(Reader::of(run, &self.file)));
        let lane = |records| Lane { records, is_current: false };
        Ordered { lanes: runs.chain([in_memory]).map(lane).collect(), key: Vec::new() }
    }
}

fn appended(all: &mut Vec<u8>, bytes: &[u8]) -> Range<u32> {
    let begin = all.len() as u32;
    room(all, bytes.len());
    all.extend_from_slice(bytes);
    begin..all.len() as u32
}

fn part<'b>(all: &'b [u8], range: &Range<u32>) -> &'b [u8] {
    &all[range.start as usize..range.end as usize]
}

/// Records in memory.
#[derive(Clone, Default)]
struct Kept {
    keys: Keys,
    bytes: Vec<u8>,
    records: Vec<Record>,
}

/// A record begins where the one before ends.
#[derive(Clone, Copy)]
struct Record {
    group: u32,
    end: u32,
}

impl Kept {
    fn push(&mut self, key: &[&[u8]], parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let end = u32::try_from(self.bytes.len() + length).expect("a record below 4 GB");
        room(&mut self.bytes, length);
        room(&mut self.records, 1);
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.records.push(Record { group: self.keys.number(key), end });
    }

    fn size(&self) -> usize {
        self.bytes.len() + self.keys.size() + self.records.len() * size_of::<Record>()
    }

    fn truncate(&mut self, count: usize) {
        self.records.truncate(count);
        self.bytes.truncate(self.records.last().map_or(0, |last| last.end as usize));
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.truncate(0);
    }

    fn key(&self, index: u32) -> &[u8] {
        self.keys.key(self.records[index as usize].group)
    }

    fn record(&self, index: u32) -> &[u8] {
        let begin = index.checked_sub(1).map_or(0, |before| self.records[before as usize].end);
        &self.bytes[begin as usize..self.records[index as usize].end as usize]
    }

    /// The indexes of the records of each group, of what [`Kept::order`] gives.
    fn groups<'o>(&self, order: &'o [u32]) -> impl Iterator<Item = &'o [u32]> {
        let group = |index: &u32| self.records[*index as usize].group;
        order.chunk_by(move |a, b| group(a) == group(b))
    }

    /// The indexes of the records in their order.
    fn order(&self) -> Vec<u32> {
        if self.keys.count() == 1 {
            let mut order = collected(0..self.records.len() as u32);
            self.sort(&mut order);
            return order;
        }
        let mut groups: Vec<u32> = collected(0..self.keys.count());
        groups.sort_unstable_by(|a, b| self.keys.key(*a).cmp(self.keys.key(*b)));
        // How many records each group has, then where its next one comes.
        let mut next: Vec<u32> = collected(groups.iter().map(|_| 0));
        self.records.iter().for_each(|record| next[record.group as usize] += 1);
        let mut begin = 0;
        for group in groups {
            let count = std::mem::replace(&mut next[group as usize], begin);
            begin += count;
        }
        let mut order: Vec<u32> = collected(self.records.iter().map(|_| 0));
        for (index, record) in self.records.iter().enumerate() {
            let place = &mut next[record.group as usize];
            order[*place as usize] = index as u32;
            *place += 1;
        }
        let is_same = |a: &u32, b: &u32| self.records[*a as usize].group == self.records[*b as usize].group;
        order.chunk_by_mut(is_same).for_each(|group| self.sort(group));
        order
    }

    /// Puts the records of a group in order; as a rule they are.
    fn sort(&self, group: &mut [u32]) {
        if !group.is_sorted_by(|a, b| self.record(*a) <= self.record(*b)) {
            group.sort_unstable_by(|a, b| self.record(*a).cmp(self.record(*b)));
        }
    }
}

/// The keys of groups, numbered as they came.
#[derive(Clone, Default)]
struct Keys {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    /// The numbers by the keys, once there are more than a few.
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

/// So many keys are compared one by one: most transactions have no more.
const FEW: usize = 8;

impl Keys {
    fn count(&self) -> u32 {
        self.ends.len() as u32
    }

    fn size(&self) -> usize {
        // A table is never fuller than seven eighths, and may be half as full.
        self.bytes.len() + self.ends.len() * (size_of::<u32>() + 2 * (size_of::<u32>() + 1))
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.table.clear();
    }

    fn key(&self, number: u32) -> &[u8] {
        key_of(&self.bytes, &self.ends, number)
    }

    /// The number of a key, which is added if it is new.
    fn number(&mut self, parts: &[&[u8]]) -> u32 {
        let known = self.bytes.len();
        room(&mut self.bytes, parts.iter().map(|part| part.len()).sum());
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        let Some(number) = self.find(&self.bytes[known..]) else { return self.add() };
        self.bytes.truncate(known);
        number
    }

    fn find(&self, key: &[u8]) -> Option<u32> {
        let is_it = |number: &u32| self.key(*number) == key;
        // Rows of one conversation often follow one another.
        let last = self.count().checked_sub(1).filter(is_it);
        last.or_else(|| match self.ends.len() > FEW {
            true => self.table.find(self.hasher.hash_one(key), is_it).copied(),
            false => (0..self.count()).find(is_it),
        })
    }

    /// Adds the key that stands behind those that are known.
    fn add(&mut self) -> u32 {
        let number = self.count();
        room(&mut self.ends, 1);
        self.ends.push(u32::try_from(self.bytes.len()).expect("keys below 4 GB"));
        let new = match self.ends.len() {
            more if more > FEW + 1 => number..number + 1,
            more if more > FEW => 0..number + 1,
            _ => number..number,
        };
        let Keys { bytes, ends, table, hasher } = self;
        let hash = |number: &u32| hasher.hash_one(key_of(bytes, ends, *number));
        for number in new {
            table.insert_unique(hash(&number), number, hash);
        }
        number
    }
}

fn key_of<'k>(bytes: &'k [u8], ends: &[u32], number: u32) -> &'k [u8] {
    let begin = number.checked_sub(1).map_or(0, |before| ends[before as usize]);
    &bytes[begin as usize..ends[number as usize] as usize]
}

/// Writes a run, some of it at a time.
struct Writer<'f> {
    file: &'f mut TempFile,
    end: u64,
    buffer: Vec<u8>,
}

impl Writer<'_> {
    fn number(&mut self, number: usize) {
        self.bytes(&u32::try_from(number).expect("a run is smaller").to_ne_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        room(&mut self.buffer, bytes.len());
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= WINDOW {
            self.write();
        }
    }

    fn write(&mut self) {
        self.file.write(self.end, &self.buffer);
        self.end += self.buffer.len() as u64;
        self.buffer.clear();
    }

    /// Where the run ends, which is written whole.
    fn flushed(mut self) -> u64 {
        self.write();
        self.end
    }
}

/// Reads a run, record by record.
struct Reader<'f> {
    file: &'f TempFile,
    /// What is not yet in the window.
    rest: Range<u64>,
    window: Vec<u8>,
    /// How much of the window is read.
    read: usize,
    /// Records of the group that are still to be read.
    left: u32,
    /// Numbers from this one on do not count.
    count: u32,
    has_record: bool,
    key: Vec<u8>,
    /// The record is the first of its group.
    begins: bool,
    number: u32,
    length: usize,
}

impl<'f> Reader<'f> {
    /// Stands at the first record.
    fn of(run: &Run, file: &'f TempFile) -> Reader<'f> {
        let mut reader = Reader {
            file,
            rest: run.begin..run.end,
            window: Vec::new(),
            read: 0,
            left: 0,
            count: run.count,
            has_record: false,
            key: Vec::new(),
            begins: false,
            number: 0,
            length: 0,
        };
        reader.advance();
        reader
    }

    fn record(&self) -> &[u8] {
        &self.window[self.read - self.length..self.read]
    }

    fn advance(&mut self) {
        self.begins = false;
        loop {
            if self.left == 0 && !self.next_group() {
                self.has_record = false;
                return;
            }
            self.left -= 1;
            self.number = self.take_number();
            self.length = self.take_number() as usize;
            self.take(self.length);
            if self.number < self.count {
                self.has_record = true;
                return;
            }
        }
    }

    fn next_group(&mut self) -> bool {
        if self.read == self.window.len() && self.rest.is_empty() {
            return false;
        }
        let length = self.take_number() as usize;
        self.take(length);
        self.key.clear();
        self.key.extend_from_slice(&self.window[self.read - length..self.read]);
        self.left = self.take_number();
        self.begins = true;
        true
    }

    fn take_number(&mut self) -> u32 {
        self.take(size_of::<u32>());
        u32::from_ne_bytes(*self.window[..self.read].last_chunk().expect("four bytes were taken"))
    }

    /// Reads so many bytes more, which then are the last ones that are read of the window.
    fn take(&mut self, length: usize) {
        if self.window.len() - self.read < length {
            self.window.drain(..self.read);
            self.read = 0;
            let missing = length - self.window.len();
            let most = missing.max(WINDOW).min((self.rest.end - self.rest.start) as usize);
            let kept = self.window.len();
            room(&mut self.window, most);
            self.window.resize(kept + most, 0);
            self.file.seek(self.rest.start);
            self.file.read(&mut self.window[kept..]);
            self.rest.start += most as u64;
        }
        self.read += length;
    }
}

/// Records in order, from one place.
enum Records<'g> {
    Memory { kept: &'g Kept, order: Vec<u32>, at: usize },
    Run(Reader<'g>),
}

impl Records<'_> {
    /// The key of the group of the next record, if there is one.
    fn key(&self) -> Option<&[u8]> {
        match self {
            Records::Memory { kept, order, at } => order.get(*at).map(|index| kept.key(*index)),
            Records::Run(reader) => reader.has_record.then_some(reader.key.as_slice()),
        }
    }

    fn record(&self) -> &[u8] {
        match self {
            Records::Memory { kept, order, at } => kept.record(order[*at]),
            Records::Run(reader) => reader.record(),
        }
    }

    /// Goes on to the next record, and says whether that is one of the same group.
    fn advance(&mut self) -> bool {
        match self {
            Records::Memory { kept, order, at } => {
                *at += 1;
                let group = |index: &u32| kept.records[*index as usize].group;
                order.get(*at).is_some_and(|next| group(next) == group(&order[*at - 1]))
            }
            Records::Run(reader) => {
                reader.advance();
                reader.has_record && !reader.begins
            }
        }
    }
}

/// Records in the order of their groups.
pub struct Ordered<'g> {
    lanes: Vec<Lane<'g>>,
    key: Vec<u8>,
}

struct Lane<'g> {
    records: Records<'g>,
    /// Its next record is of the current group.
    is_current: bool,
}

impl Ordered<'_> {
    /// The key of the group of the record that was appended last.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Appends the next record to `buffer` and says whether it is the first of its group; `None` if there is none.
    pub fn append_next(&mut self, buffer: &mut Vec<u8>) -> Option<bool> {
        heed_cancel();
        let begins = !self.lanes.iter().any(|lane| lane.is_current);
        if begins {
            self.next_group()?;
        }
        let current = self.lanes.iter_mut().filter(|lane| lane.is_current);
        let lane = current.min_by(|a, b| a.records.record().cmp(b.records.record()))?;
        let record = lane.records.record();
        room(buffer, record.len());
        buffer.extend_from_slice(record);
        lane.is_current = lane.records.advance();
        Some(begins)
    }

    fn next_group(&mut self) -> Option<()> {
        let key = self.lanes.iter().filter_map(|lane| lane.records.key()).min()?;
        self.key.clear();
        self.key.extend_from_slice(key);
        self.lanes.iter_mut().for_each(|lane| lane.is_current = lane.records.key() == Some(&self.key));
        Some(())
    }
}
