//! Where do bytes lie that are more than memory should hold? In a temporary file of the server's.

use pgrx::prelude::*;

/// Bytes of each file that a temporary file is made of, as the server has it.
const SEGMENT: u64 = 1 << 30;

/// A temporary file, which is made by the first write.
///
/// It is closed by [`TempFile::close`]; on an error by the server, when the subtransaction that made it is aborted.
#[derive(Clone)]
pub struct TempFile {
    file: *mut pg_sys::BufFile,
    /// The file outlives the subtransaction that makes it.
    lasting: bool,
}

impl TempFile {
    /// A file for the work of the moment.
    pub const fn of_moment() -> TempFile {
        TempFile { file: std::ptr::null_mut(), lasting: false }
    }

    /// A file that lives until the transaction ends, whatever becomes of its subtransactions.
    pub const fn of_transaction() -> TempFile {
        TempFile { file: std::ptr::null_mut(), lasting: true }
    }

    /// Gives the file back, if there is one.
    pub fn close(&mut self) {
        if !self.file.is_null() {
            // SAFETY: the file was opened by this transaction, which is still in progress, and is closed once.
            unsafe { pg_sys::BufFileClose(self.file) };
        }
        self.file = std::ptr::null_mut();
    }

    /// Writes bytes at a position that is not beyond the end.
    pub fn write(&mut self, position: u64, bytes: &[u8]) {
        // SAFETY: the file's memory is the transaction's, and so is the file itself if it is lasting: owner and
        // context are put back once it is open. What is written is only read.
        unsafe {
            if self.file.is_null() {
                let context = pg_sys::MemoryContextSwitchTo(pg_sys::TopTransactionContext);
                let owner = pg_sys::CurrentResourceOwner;
                if self.lasting {
                    pg_sys::CurrentResourceOwner = pg_sys::TopTransactionResourceOwner;
                }
                self.file = pg_sys::BufFileCreateTemp(false);
                pg_sys::CurrentResourceOwner = owner;
                pg_sys::MemoryContextSwitchTo(context);
            }
            self.seek(position);
            pg_sys::BufFileWrite(self.file, bytes.as_ptr().cast_mut().cast(), bytes.len());
        }
    }

    /// Where bytes are read from next.
    pub fn seek(&self, position: u64) {
        let (segment, offset) = ((position / SEGMENT) as i32, (position % SEGMENT) as pg_sys::off_t);
        // SAFETY: the file is open, and the position is not beyond its end.
        let result = unsafe { pg_sys::BufFileSeek(self.file, segment, offset, 0) };
        assert_eq!(result, 0, "cannot seek in a temporary file");
    }

    /// Reads on, as many bytes as there is room for.
    pub fn read(&self, buffer: &mut [u8]) {
        // SAFETY: the file is open, and the buffer is as long as what is read into it.
        let read = unsafe { pg_sys::BufFileRead(self.file, buffer.as_mut_ptr().cast(), buffer.len()) };
        assert_eq!(read, buffer.len(), "a temporary file is shorter than what was written");
    }
}
