//! Checkpoints of a run: one safetensors file each, with the whole state. The order of the data and all random numbers follow
//! from the seed and the number of the step, which are in it.

use super::data::Source;
use crate::formats::{Safetensors, safetensors, shown};
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use tilewright_ir::array::Array;
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::types::Type;
use tilewright_runtime::checksum::Checksum;

/// The checkpoints of a folder.
pub struct Checkpoints {
    folder: PathBuf,
    /// How many stay.
    keep: usize,
    /// What the run is, see [`Config::fingerprint`](super::Config::fingerprint).
    run: String,
    /// What it learns from.
    sources: Vec<Source>,
    /// Held while the run lasts; the system lets go of it when a process ends, however it ends. None of who only reads.
    _lock: Option<File>,
}

/// A checkpoint that was read.
pub struct Resumed {
    /// Steps done.
    pub step: u64,
    /// The state, in the order of its names.
    pub state: Vec<Array>,
    /// The steps that the run was to have, where that is another number now.
    pub planned: Option<u64>,
}

const PREFIX: &str = "step-";
/// The key of the checksums of what the run learns from.
const SOURCES: &str = "sources";
/// The key of the number of steps that were done.
const STEP: &str = "step";

/// The lock of a folder: two runs would remove each other's files.
fn locked(folder: &Path) -> Result<File, Diagnostic> {
    let path = folder.join("lock");
    let cannot = |e: std::io::Error| failed(&path, format!("cannot lock the folder: {e}"));
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(cannot)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let place = Place::Named(folder.display().to_string().into());
            let busy = Diagnostic::new("run-locked", "another run writes its checkpoints to this folder").at(place, "");
            Err(busy.note("wait until it ends, or name another `out`"))
        }
        Err(TryLockError::Error(e)) => Err(cannot(e)),
    }
}

impl Checkpoints {
    /// Makes the folder if there is none, for the run that `run` describes and that learns from `sources`.
    ///
    /// Errors: `file`; `run-locked` while another run has the folder.
    pub fn new(folder: PathBuf, keep: usize, run: String, sources: Vec<Source>) -> Result<Checkpoints, Diagnostic> {
        std::fs::create_dir_all(&folder).map_err(|e| failed(&folder, format!("cannot make the folder: {e}")))?;
        let lock = locked(&folder)?;
        let all = Checkpoints { folder, keep, run, sources, _lock: Some(lock) };
        // What a run left that was killed while it wrote.
        for path in all.paths()? {
            if name_of(&path).starts_with(PREFIX) && path.extension().is_some_and(|e| e == "part") {
                std::fs::remove_file(&path).map_err(|e| failed(&path, format!("cannot remove the file: {e}")))?;
            }
        }
        Ok(all)
    }

    /// To read them, also while the run goes on.
    pub fn reading(folder: PathBuf, run: String, sources: Vec<Source>) -> Checkpoints {
        Checkpoints { folder, keep: usize::MAX, run, sources, _lock: None }
    }

    fn paths(&self) -> Result<Vec<PathBuf>, Diagnostic> {
        let cannot = |e: std::io::Error| failed(&self.folder, format!("cannot read the folder: {e}"));
        std::fs::read_dir(&self.folder).map_err(cannot)?.map(|entry| entry.map(|e| e.path()).map_err(cannot)).collect()
    }

    /// Steps and files of what is there, oldest first. Errors: `file`.
    pub fn list(&self) -> Result<Vec<(u64, PathBuf)>, Diagnostic> {
        let step = |path: &Path| name_of(path).strip_prefix(PREFIX)?.strip_suffix(".safetensors")?.parse().ok();
        let mut found: Vec<(u64, PathBuf)> =
            self.paths()?.into_iter().filter_map(|path| Some((step(&path)?, path))).collect();
        found.sort();
        Ok(found)
    }

    /// Writes the state after `step` steps: to a temporary name, flushed to the disk, renamed. Only then the oldest go.
    ///
    /// Errors: `file`; those that were there stay.
    pub fn write(&self, step: u64, names: &[(String, Type)], state: &[Array]) -> Result<(), Diagnostic> {
        let tensors: Vec<(&str, &Array)> = names.iter().map(|(name, _)| name.as_str()).zip(state).collect();
        let metadata = BTreeMap::from([
            ("format".into(), "tilewright-train-1".into()),
            ("run".into(), self.run.clone()),
            (SOURCES.into(), self.sources.iter().map(|s| s.checksum.as_str()).collect::<Vec<_>>().join(" ")),
            (STEP.into(), step.to_string()),
            ("checksum".into(), checksum(&tensors)),
        ]);
        safetensors::write(self.folder.join(format!("{PREFIX}{step:010}.safetensors")), &tensors, &metadata)?;
        // The new name is on the disk before old files leave it.
        let synced = File::open(&self.folder).and_then(|folder| folder.sync_all());
        synced.map_err(|e| failed(&self.folder, format!("cannot flush the folder: {e}")))?;
        let all = self.list()?;
        for (_, path) in &all[..all.len().saturating_sub(self.keep)] {
            std::fs::remove_file(path).map_err(|e| failed(path, format!("cannot remove the old checkpoint: {e}")))?;
        }
        Ok(())
    }

    /// The last one; none if there is none.
    ///
    /// Errors: `file`, `safetensors`; `checkpoint` for one of another run, of one that learned from other data, with other tensors, or
    /// whose data are not those that were written. A note names the one before it.
    pub fn resume(&self, names: &[(String, Type)]) -> Result<Option<Resumed>, Diagnostic> {
        let all = self.list()?;
        let Some((step, path)) = all.last() else { return Ok(None) };
        let before = all.len().checked_sub(2).map(|i| &all[i].1);
        let resumed = self.read(*step, path, names).map_err(|d| match before {
            Some(before) if d.damaged => (*d.error)
                .note(format!("the one before it is {}: remove this one to go on from there", before.display())),
            _other => *d.error,
        });
        resumed.map(Some)
    }

    /// The one after `step` steps; none if there is none. Errors: those of [`Checkpoints::resume`].
    pub fn after(&self, step: u64, names: &[(String, Type)]) -> Result<Option<Resumed>, Diagnostic> {
        let all = self.list()?;
        let found = all.iter().find(|(number, _)| *number == step);
        found.map(|(step, path)| self.read(*step, path, names).map_err(|d| *d.error)).transpose()
    }

    fn read(&self, step: u64, path: &Path, names: &[(String, Type)]) -> Result<Resumed, Unread> {
        let wrong = |message: String| {
            Diagnostic::new("checkpoint", message).at(Place::Named(path.display().to_string().into()), "")
        };
        let other = |message: String, note: &str| Unread { error: wrong(message).note(note).into(), damaged: false };
        let file = Safetensors::open(path)?;
        let run = file.metadata.get("run").map_or("", String::as_str);
        let planned = if run == self.run { None } else { other_length(run, &self.run) };
        if run != self.run && planned.is_none() {
            return Err(other(difference(run, &self.run), "name another `out`, or remove its checkpoints"));
        }
        // Runs that began before there were checksums have none.
        if let Some(before) = file.metadata.get(SOURCES)
            && let Some(source) = changed(before, &self.sources)
        {
            let message = format!("{} is not what it was when the checkpoint was written", shown(source));
            return Err(other(message, "put it back as it was; or name another `out`, or remove its checkpoints"));
        }
        let mut state = Vec::with_capacity(names.len());
        for (name, ty) in names {
            let array = file.tensor(name)?;
            let found = Type::new(array.dtype(), array.shape().iter().copied());
            if found != *ty {
                return Err(wrong(format!("{}: expected {ty}, found {found}", shown(name))).into());
            }
            state.push(array);
        }
        let tensors: Vec<(&str, &Array)> = names.iter().map(|(name, _)| name.as_str()).zip(&state).collect();
        if file.names().count() != names.len() || file.metadata.get("checksum") != Some(&checksum(&tensors)) {
            return Err(wrong("its data are not those that were written: the checksum differs".into()).into());
        }
        // Those of runs that began before files said so do not.
        if let Some(written) = file.metadata.get(STEP).filter(|written| **written != step.to_string()) {
            let message = format!("it was written after step {written}, and its name says {step}");
            return Err(wrong(message).note("give it back its name, or remove it").into());
        }
        Ok(Resumed { step, state, planned })
    }
}

/// Why a checkpoint cannot be taken.
struct Unread {
    error: Box<Diagnostic>,
    /// Whether the file is to blame; else it is of another run or of other data, and so are those before it.
    damaged: bool,
}

impl From<Diagnostic> for Unread {
    fn from(error: Diagnostic) -> Unread {
        Unread { error: error.into(), damaged: true }
    }
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|n| n.to_str()).unwrap_or_default()
}

fn failed(path: &Path, message: String) -> Diagnostic {
    Diagnostic::new("file", message).at(Place::Named(path.display().to_string().into()), "")
}

/// The number of steps in their fingerprint, if nothing else differs.
fn other_length(theirs: &str, ours: &str) -> Option<u64> {
    let mut theirs: serde_json::Value = serde_json::from_str(theirs).ok()?;
    let mut ours: serde_json::Value = serde_json::from_str(ours).ok()?;
    let planned = theirs.pointer_mut("/train/steps")?.take().as_u64()?;
    ours.pointer_mut("/train/steps")?.take();
    (theirs == ours).then_some(planned)
}

/// What first differs between two fingerprints.
fn difference(theirs: &str, ours: &str) -> String {
    let parts = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap_or_default();
    let (theirs, ours) = (parts(theirs), parts(ours));
    let key = ours.as_object().into_iter().flatten().find(|(key, value)| theirs.get(key.as_str()) != Some(value));
    match key {
        Some((key, value)) => {
            let found = theirs.get(key.as_str()).unwrap_or(&serde_json::Value::Null);
            format!("the checkpoint is of another run: expected `{key}` {value}, found {found}")
        }
        None => "the checkpoint is of another run".into(),
    }
}

/// The first of `sources` whose checksum is not the one that was written.
fn changed<'a>(before: &str, sources: &'a [Source]) -> Option<&'a str> {
    let before: Vec<&str> = before.split_whitespace().collect();
    let other = sources.iter().enumerate().find(|(i, s)| before.get(*i) != Some(&s.checksum.as_str()));
    other.map(|(_, source)| source.name.as_str())
}

/// Over names and data.
fn checksum(tensors: &[(&str, &Array)]) -> String {
    let mut sum = Checksum::new();
    for (name, array) in tensors {
        sum.add(name.as_bytes());
        sum.add(array.bytes());
    }
    sum.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tilewright_ir::types::DType;

    fn state(x: f32) -> (Vec<(String, Type)>, Vec<Array>) {
        (vec![("w.a".into(), Type::new(DType::F32, [2]))], vec![Array::from_f32(&[2], &[x, -x]).unwrap()])
    }

    #[test]
    fn the_last_ones_stay_and_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let all = Checkpoints::new(folder.path().join("a/b"), 2, "{}".into(), Vec::new()).unwrap();
        let names = state(0.0).0;
        assert!(all.resume(&names).unwrap().is_none());
        for step in [9, 10, 200] {
            all.write(step, &names, &state(step as f32).1).unwrap();
        }
        let steps: Vec<u64> = all.list().unwrap().into_iter().map(|(step, _)| step).collect();
        assert_eq!(steps, [10, 200]);
        let back = all.resume(&names).unwrap().unwrap();
        assert_eq!((back.step, back.state), (200, state(200.0).1));
    }

    #[test]
    fn broken_files_are_errors_that_name_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let mut all = Checkpoints::new(folder.path().into(), 5, "{\"seed\":1}".into(), Vec::new()).unwrap();
        let names = state(0.0).0;
        all.write(1, &names, &state(1.0).1).unwrap();
        all.write(2, &names, &state(2.0).1).unwrap();
        let path = all.list().unwrap()[1].1.clone();
        let whole = std::fs::read(&path).unwrap();
        let fails = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let error = all.resume(&names).err().unwrap();
            assert!(error.to_string().contains("step-0000000001"), "{error}");
            error.code
        };
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        assert_eq!(fails(&flipped), "checkpoint");
        for cut in [0, 7, 40, whole.len() - 1] {
            assert_eq!(fails(&whole[..cut]), "safetensors", "{cut} bytes");
        }
        std::fs::write(&path, &whole).unwrap();
        let one = std::mem::replace(&mut all.run, "{\"seed\":2}".into());
        let error = all.resume(&names).err().unwrap();
        all.run = one;
        assert!(error.to_string().contains("expected `seed` 2, found 1"), "{error}");
        let wide = vec![("w.a".to_string(), Type::new(DType::F32, [3]))];
        assert_eq!(all.resume(&wide).err().unwrap().code, "checkpoint");
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let all = Checkpoints::new(folder.path().into(), 1, "{}".into(), Vec::new()).unwrap();
        let (names, values) = state(1.0);
        all.write(1, &names, &values).unwrap();
        // A folder in the way of the temporary name's target: the rename fails, as a full disk fails the write before it.
        std::fs::create_dir(folder.path().join("step-0000000002.safetensors")).unwrap();
        assert_eq!(all.write(2, &names, &values).unwrap_err().code, "file");
        std::fs::remove_dir(folder.path().join("step-0000000002.safetensors")).unwrap();
        assert_eq!(all.resume(&names).unwrap().unwrap().step, 1);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "but for the lock, nothing is left over");
    }

    #[test]
    fn one_run_has_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let new = || Checkpoints::new(folder.path().into(), 1, "{}".into(), Vec::new());
        let first = new().unwrap();
        // What the first is writing.
        std::fs::write(folder.path().join("step-1.part"), "x").unwrap();
        assert_eq!(new().err().map(|d| d.code), Some("run-locked"));
        assert!(folder.path().join("step-1.part").exists());
        drop(first);
        assert!(new().is_ok());
    }
}
