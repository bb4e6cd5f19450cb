//! Compiled kernels on disk, by a hash of everything that decides them.

use crate::checksum::Checksum;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Distinguishes temporary files of one process.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// First bytes of an entry, with the version of its layout.
const MAGIC: &[u8; 8] = b"twcubin2";

/// A folder of entries. Whatever goes wrong with it is a miss, never an error.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    pub fn new(folder: &Path) -> Cache {
        Cache { folder: folder.to_path_buf() }
    }

    /// The log and the cubin stored under a key. The key itself is stored too, so that a collision is a miss.
    pub fn get(&self, key: &str) -> Option<(String, Vec<u8>)> {
        let bytes = fs::read(self.path(key)).ok()?;
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let stored = field(&mut rest)?;
        let log = field(&mut rest)?;
        let cubin = field(&mut rest)?;
        let good = stored == key.as_bytes() && rest.len() == 8 && rest == sum(Checksum::new(), cubin).to_le_bytes();
        if good { Some((String::from_utf8(log.to_vec()).ok()?, cubin.to_vec())) } else { None }
    }

    /// Stores an entry: written under a temporary name, then renamed, so that readers see whole entries only.
    pub fn put(&self, key: &str, log: &str, cubin: &[u8]) {
        let mut bytes = MAGIC.to_vec();
        for part in [key.as_bytes(), log.as_bytes(), cubin] {
            bytes.extend((part.len() as u64).to_le_bytes());
            bytes.extend(part);
        }
        bytes.extend(sum(Checksum::new(), cubin).to_le_bytes());
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let temporary = self.folder.join(format!(".{}-{n}.tmp", std::process::id()));
        let written = fs::create_dir_all(&self.folder).and_then(|()| fs::write(&temporary, bytes));
        if written.and_then(|()| fs::rename(&temporary, self.path(key))).is_err() {
            // A cache that cannot be written is only slower.
            let _ = fs::remove_file(&temporary);
        }
    }

    fn path(&self, key: &str) -> PathBuf {
        let bytes = key.as_bytes();
        let both = [Checksum::new(), Checksum::other()].map(|from| sum(from, bytes));
        self.folder.join(format!("{:016x}{:016x}.cubin", both[0], both[1]))
    }
}

/// The sum of `bytes` by a checksum of none.
fn sum(mut from: Checksum, bytes: &[u8]) -> u64 {
    from.add(bytes);
    from.value()
}

/// A length and that many bytes.
fn field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (out, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_entries_and_drops_broken_ones() {
        let folder = std::env::temp_dir().join(format!("tilewright-cache-test-{}", std::process::id()));
        let cache = Cache::new(&folder);
        assert_eq!(cache.get("a"), None);
        cache.put("a", "log", &[1, 2, 3]);
        assert_eq!(cache.get("a"), Some(("log".to_string(), vec![1, 2, 3])));
        assert_eq!(cache.get("b"), None);
        let path = cache.path("a");
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.len() - 9;
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(cache.get("a"), None, "a flipped bit of the cubin");
        fs::write(&path, &bytes[..20]).unwrap();
        assert_eq!(cache.get("a"), None, "a cut entry");
        fs::remove_dir_all(&folder).unwrap();
    }
}
