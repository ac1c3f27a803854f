//! Reading and writing through handles.

use bytes::Bytes;

use super::handles::FileHandle;
use super::{Allocate, Drive, Handle, Seek, Vfs, VfsError};
use crate::content::read_lent;
use crate::model::{ByteRange, NodeId};
use crate::store::Change;

/// Bytes copied at once by copy_file_range, and in one call at most.
const COPY_CHUNK: u64 = 1 << 20;
const COPY_MAX: u64 = 64 << 20;

impl<D: Drive> Vfs<D> {
    pub(super) async fn read_at(
        &self,
        id: NodeId,
        handle: Handle,
        offset: u64,
        size: u64,
    ) -> Result<Bytes, VfsError> {
        let open = self.handles.get(id, handle)?;
        let (body, lent) = open.file.with(|state| Ok((state.body.clone(), state.through.changed())))?;
        open.file.kernel_uses_it();
        match lent {
            // Others may store into it through a map.
            Some(lent) => read_lent(&lent, ByteRange::at(offset, size)).map_err(VfsError::Io),
            None if open.is_denied && !body.is_here(ByteRange::at(offset, size)) => {
                Err(VfsError::AccessDenied)
            }
            None => body.read(ByteRange::at(offset, size), &open.reader).await,
        }
    }

    pub(super) fn write_at(
        &self,
        id: NodeId,
        handle: Handle,
        offset: u64,
        data: &[u8],
    ) -> Result<u32, VfsError> {
        self.write_where(id, handle, data, |_| offset).map(|_| data.len() as u32)
    }

    /// Writes behind the last byte, wherever the kernel takes that to be; if it was wrong, it is told.
    pub(super) fn write_behind(
        &self,
        id: NodeId,
        handle: Handle,
        offset: u64,
        data: &[u8],
    ) -> Result<u32, VfsError> {
        let end = self.write_where(id, handle, data, |size| size)?;
        if end != offset {
            tracing::debug!(node = %id, end, offset, "the kernel appended to another length");
            self.drive.changed(&[Change::Node { id, content: true }]);
        }
        Ok(data.len() as u32)
    }

    /// Writes at the offset that `place` finds for a body of so many bytes; returns it.
    fn write_where(
        &self,
        id: NodeId,
        handle: Handle,
        data: &[u8],
        place: impl FnOnce(u64) -> u64,
    ) -> Result<u64, VfsError> {
        let open = self.writer(id, handle)?;
        u32::try_from(data.len()).map_err(|_| VfsError::Invalid)?;
        let at = open.file.with(|state| {
            state.make_writable(&self.drive, false)?;
            let at = place(state.body.size());
            state.write(at, data)?;
            state.touched(self.now());
            Ok(at)
        })?;
        if open.flags.sync {
            self.sync_handle(id, handle)?;
        }
        Ok(at)
    }

    pub(super) fn allocate(
        &self,
        id: NodeId,
        handle: Handle,
        offset: u64,
        length: u64,
        what: Allocate,
    ) -> Result<(), VfsError> {
        if length == 0 {
            return Err(VfsError::Invalid);
        }
        let open = self.writer(id, handle)?;
        let range = ByteRange::at(offset, length);
        open.file.with(|state| {
            state.make_writable(&self.drive, false)?;
            state.allocate(range, what)?;
            state.touched(self.now());
            Ok(())
        })
    }

    pub(super) fn seek(
        &self,
        id: NodeId,
        handle: Handle,
        offset: u64,
        whence: Seek,
    ) -> Result<u64, VfsError> {
        let body = self.handles.get(id, handle)?.file.body()?;
        let found = match whence {
            Seek::Data => body.seek_data(offset)?,
            Seek::Hole => body.seek_hole(offset)?,
        };
        found.ok_or(VfsError::NoData)
    }

    pub(super) async fn copy_range(
        &self,
        (from_id, from, from_offset): (NodeId, Handle, u64),
        (to_id, to, to_offset): (NodeId, Handle, u64),
        length: u64,
    ) -> Result<u64, VfsError> {
        self.writer(to_id, to)?;
        let length = length.min(COPY_MAX);
        let mut done = 0;
        while done < length {
            let want = COPY_CHUNK.min(length - done);
            let bytes = match self.read_at(from_id, from, from_offset + done, want).await {
                Err(_) if done > 0 => break,
                other => other?,
            };
            if bytes.is_empty() {
                break;
            }
            match self.write_at(to_id, to, to_offset + done, &bytes) {
                Err(_) if done > 0 => break,
                other => done += u64::from(other?),
            }
        }
        Ok(done)
    }

    /// The handle, counted among the writers.
    fn writer(&self, id: NodeId, handle: Handle) -> Result<std::sync::Arc<FileHandle>, VfsError> {
        let open = self.handles.get(id, handle)?;
        if !open.flags.write {
            return Err(VfsError::BadHandle);
        }
        self.set_writer(&open, true)?;
        Ok(open)
    }
}
