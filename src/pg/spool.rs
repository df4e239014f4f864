//! Where do records wait that may be more than memory should hold? In a log that spills, to be read back in byte order.

use crate::pg::limit::heed_cancel;
use crate::pg::memory::room;
use crate::pg::temporary::TempFile;
use pgrx::prelude::*;

/// Bytes kept in memory before they are written to a temporary file.
const IN_MEMORY: usize = 8 << 20;
/// Kilobytes that sorting spilled records may take.
const SORT_MEMORY: i32 = 16 << 10;
/// Records in the order in which they were pushed: each its length in four bytes, then its bytes.
#[derive(Clone)]
pub struct Spool {
    memory: Vec<u8>,
    /// Bytes that lie in the file, before those in memory.
    spilled: u64,
    file: TempFile,
}

impl Default for Spool {
    /// A spool for the work of the moment.
    fn default() -> Spool {
        Spool { memory: Vec::new(), spilled: 0, file: TempFile::of_moment() }
    }
}

impl Spool {
    /// A spool that lives until the transaction ends, whatever becomes of its subtransactions.
    pub fn of_transaction() -> Spool {
        Spool { file: TempFile::of_transaction(), ..Spool::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.end() == 0
    }

    /// Where the next record will begin.
    pub fn end(&self) -> u64 {
        self.spilled + self.memory.len() as u64
    }

    pub fn push(&mut self, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        room(&mut self.memory, size_of::<u32>() + length);
        self.memory.extend_from_slice(&u32::try_from(length).expect("a record below 4 GB").to_ne_bytes());
        for part in parts {
            self.memory.extend_from_slice(part);
        }
        if self.memory.len() > IN_MEMORY {
            self.spill();
        }
    }

    /// Forgets the records from `end` on, which is where one began.
    pub fn truncate(&mut self, end: u64) {
        if end >= self.spilled {
            self.memory.truncate((end - self.spilled) as usize);
        } else {
            self.memory.clear();
            self.spilled = end;
        }
    }

    /// Gives the temporary file back.
    pub fn close(&mut self) {
        self.file.close();
        self.memory = Vec::new();
        self.spilled = 0;
    }

    fn spill(&mut self) {
        self.file.write(self.spilled, &self.memory);
        self.spilled += self.memory.len() as u64;
        self.memory.clear();
    }

    /// Gives each record in turn, in the order in which they were pushed. A cancel ends it.
    pub fn for_each(&self, mut each: impl FnMut(&[u8])) {
        if self.spilled > 0 {
            self.file.seek(0);
        }
        let mut record = Vec::new();
        let mut position = 0;
        while position < self.spilled {
            let mut length = [0; 4];
            self.file.read(&mut length);
            record.resize(u32::from_ne_bytes(length) as usize, 0);
            self.file.read(&mut record);
            position += 4 + record.len() as u64;
            heed_cancel();
            each(&record);
        }
        for record in self.in_memory() {
            heed_cancel();
            each(record);
        }
    }

    /// The records that are not in the file.
    fn in_memory(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.memory.as_slice();
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first_chunk()?;
            let (record, after) = after.split_at(u32::from_ne_bytes(*length) as usize);
            rest = after;
            Some(record)
        })
    }

    /// The records in the order of their bytes.
    pub fn sorted(&self) -> Sorted<'_> {
        if self.spilled > 0 {
            return Sorted::Spilled(Sort::of(self));
        }
        let mut records: Vec<&[u8]> = self.in_memory().collect();
        records.sort_unstable();
        Sorted::InMemory(records.into_iter())
    }
}

/// Records in the order of their bytes.
pub enum Sorted<'a> {
    InMemory(std::vec::IntoIter<&'a [u8]>),
    Spilled(Sort),
}

impl Sorted<'_> {
    /// Appends the next record to `buffer` and says whether there was one.
    pub fn append_next(&mut self, buffer: &mut Vec<u8>) -> bool {
        heed_cancel();
        match self {
            Sorted::InMemory(records) => {
                let Some(record) = records.next() else { return false };
                room(buffer, record.len());
                buffer.extend_from_slice(record);
                true
            }
            Sorted::Spilled(sort) => sort.append_next(buffer),
        }
    }
}

/// The server's own external sort.
pub struct Sort(*mut pg_sys::Tuplesortstate);

impl Sort {
    fn of(spool: &Spool) -> Sort {
        // SAFETY: the sort outlives the calls around it and ends with this value, so its memory is the transaction's. A
        // bytea is copied when it is put.
        unsafe {
            let context = pg_sys::MemoryContextSwitchTo(pg_sys::TopTransactionContext);
            let sort = pg_sys::tuplesort_begin_datum(
                pg_sys::BYTEAOID,
                pg_sys::Oid::from(pg_sys::ByteaLessOperator),
                pg_sys::InvalidOid,
                false,
                SORT_MEMORY,
                std::ptr::null_mut(),
                pg_sys::TUPLESORT_NONE as i32,
            );
            spool.for_each(|record| {
                let datum = pgrx::IntoDatum::into_datum(record).expect("not null");
                pg_sys::tuplesort_putdatum(sort, datum, false);
                pg_sys::pfree(datum.cast_mut_ptr());
            });
            pg_sys::tuplesort_performsort(sort);
            pg_sys::MemoryContextSwitchTo(context);
            Sort(sort)
        }
    }

    fn append_next(&mut self, buffer: &mut Vec<u8>) -> bool {
        let mut datum = pg_sys::Datum::from(0usize);
        let mut is_null = false;
        // SAFETY: the sort is performed and not ended; it hands over a copy of the bytea, which is freed once it is
        // read.
        unsafe {
            if !pg_sys::tuplesort_getdatum(self.0, true, &mut datum, &mut is_null, std::ptr::null_mut()) {
                return false;
            }
            let record = pgrx::varlena_to_byte_slice(datum.cast_mut_ptr());
            room(buffer, record.len());
            buffer.extend_from_slice(record);
            pg_sys::pfree(datum.cast_mut_ptr());
        }
        true
    }
}

impl Drop for Sort {
    fn drop(&mut self) {
        // On an error the end of the transaction frees what the sort holds, and may have begun to.
        if !std::thread::panicking() {
            // SAFETY: ended once, while the transaction is in progress.
            unsafe { pg_sys::tuplesort_end(self.0) };
        }
    }
}
