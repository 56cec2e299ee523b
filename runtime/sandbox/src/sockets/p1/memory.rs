//! Access to a guest's memory. Every pointer comes from the guest, so every access is checked.

use super::errno::Errno;

/// Buffers that one call may name.
const MAX_BUFFERS: u32 = 1024;

/// The linear memory that a module exports.
pub(super) struct Memory<'a>(pub(super) &'a mut [u8]);

/// A part of the memory: pointer and length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Buffer {
    pub(super) pointer: u32,
    pub(super) length: u32,
}

impl Memory<'_> {
    pub(super) fn get(&self, pointer: u32, length: u32) -> Result<&[u8], Errno> {
        let start = pointer as usize;
        let end = start.checked_add(length as usize).ok_or(Errno::FAULT)?;
        self.0.get(start..end).ok_or(Errno::FAULT)
    }

    pub(super) fn get_mut(&mut self, pointer: u32, length: u32) -> Result<&mut [u8], Errno> {
        let start = pointer as usize;
        let end = start.checked_add(length as usize).ok_or(Errno::FAULT)?;
        self.0.get_mut(start..end).ok_or(Errno::FAULT)
    }

    pub(super) fn read_u32(&self, pointer: u32) -> Result<u32, Errno> {
        let bytes = self.get(pointer, 4)?;
        Ok(u32::from_le_bytes(
            bytes.try_into().expect("4 bytes were asked for"),
        ))
    }

    pub(super) fn write(&mut self, pointer: u32, bytes: &[u8]) -> Result<(), Errno> {
        let length = u32::try_from(bytes.len()).map_err(|_| Errno::FAULT)?;
        self.get_mut(pointer, length)?.copy_from_slice(bytes);
        Ok(())
    }

    /// An array of `iovec` or `ciovec`, each checked to lie in the memory.
    pub(super) fn buffers(&self, pointer: u32, count: u32) -> Result<Vec<Buffer>, Errno> {
        if count > MAX_BUFFERS {
            return Err(Errno::INVAL);
        }
        let array = self.get(pointer, count * 8)?;
        let field = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("4 bytes"));
        let buffers = array.chunks_exact(8).map(|pair| {
            let buffer = Buffer {
                pointer: field(&pair[..4]),
                length: field(&pair[4..]),
            };
            self.get(buffer.pointer, buffer.length)?;
            Ok(buffer)
        });
        buffers.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_pointer_leads_out_of_the_memory() {
        let mut bytes = vec![0; 64];
        let mut memory = Memory(&mut bytes);
        assert_eq!(memory.get(60, 4).map(<[u8]>::len), Ok(4));
        assert_eq!(memory.get(61, 4), Err(Errno::FAULT));
        assert_eq!(memory.get(u32::MAX, u32::MAX), Err(Errno::FAULT));
        assert_eq!(memory.write(63, &[1, 2]), Err(Errno::FAULT));
        assert_eq!(memory.read_u32(64), Err(Errno::FAULT));
        // One buffer of 8 bytes at 56, and one that ends past the memory.
        memory.write(0, &56u32.to_le_bytes()).unwrap();
        memory.write(4, &8u32.to_le_bytes()).unwrap();
        memory.write(8, &56u32.to_le_bytes()).unwrap();
        memory.write(12, &9u32.to_le_bytes()).unwrap();
        assert_eq!(memory.buffers(0, 1).map(|all| all.len()), Ok(1));
        assert_eq!(memory.buffers(0, 2).err(), Some(Errno::FAULT));
        assert_eq!(memory.buffers(60, 1).err(), Some(Errno::FAULT));
        assert_eq!(memory.buffers(0, u32::MAX).err(), Some(Errno::INVAL));
    }
}
