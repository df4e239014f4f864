//! What does the meter know before it folds anything? Attached tables, policies, plans and packs on offer.

pub mod args;
pub mod away;
pub mod cache;
pub mod key_columns;
pub mod offers;
pub mod policies;
pub mod reading;
pub mod source_query;
pub mod source_rows;
pub mod sources;

use policies::Policies;
use sources::Source;
use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// What folding needs of sources and policies: asked for once and handed down, so that it cannot change on the way.
///
/// Take it after the conversations are locked: whoever held them may have folded under a policy that is newer than one
/// taken before. If they are not locked, ask whether it is [current](Catalog::is_current) after they are written.
pub struct Catalog {
    as_of: u64,
    policies: Rc<Policies>,
    attached: OnceCell<Rc<[Rc<Source>]>>,
    by_id: RefCell<HashMap<i32, Option<Rc<Source>>>>,
}

impl Catalog {
    /// As it is now.
    pub fn now() -> Catalog {
        let as_of = cache::changes();
        Catalog { as_of, policies: policies::all(), attached: OnceCell::new(), by_id: RefCell::default() }
    }

    /// Whether nothing has changed since.
    pub fn is_current(&self) -> bool {
        self.as_of == cache::changes_by_now()
    }

    /// Every version of every policy.
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// The source of that id, also if it is detached by now.
    pub fn source(&self, id: i32) -> Option<Rc<Source>> {
        let known = self.by_id.borrow().get(&id).cloned();
        known.unwrap_or_else(|| {
            let found = sources::source(id);
            self.by_id.borrow_mut().insert(id, found.clone());
            found
        })
    }

    /// Every attached message table that is still there, in the order of its attach.
    pub fn attached(&self) -> &[Rc<Source>] {
        self.attached.get_or_init(sources::attached)
    }
}
