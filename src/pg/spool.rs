//! Where do records wait that may be more than memory should hold? In a log that spills.

use crate::pg::limit::heed_cancel;
use crate::pg::memory::room;
use crate::pg::temporary::TempFile;

/// Bytes kept in memory before they are written to a temporary file.
const IN_MEMORY: usize = 8 << 20;

/// Records in the order in which they were pushed: each its length in four bytes, then its bytes.
#[derive(Clone)]
pub struct Spool {
    memory: Vec<u8>,
    /// Bytes that lie in the file, before those in memory.
    spilled: u64,
    file: TempFile,
}

impl Spool {
    /// A spool that lives until the transaction ends, whatever becomes of its subtransactions.
    pub fn of_transaction() -> Spool {
        Spool { memory: Vec::new(), spilled: 0, file: TempFile::of_transaction() }
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
}
