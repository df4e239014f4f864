//! How does a transaction see its own charges before it commits (rule 3.4)?

use crate::meter::commit;
use crate::pg::version;
use pgrx::prelude::*;

/// Folds and charges this transaction's rows now instead of at commit.
#[pg_extern(sql = false)]
fn flush() {
    version::must_be_readable();
    commit::work();
}
