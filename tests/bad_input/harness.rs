//! Runs the binary in a folder of its own, under a limit of memory and time.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Kilobytes of address space.
const ADDRESS_SPACE: u32 = 6_000_000;
/// A run that takes longer fails. Generous: tests share slow machines.
const LIMIT: Duration = Duration::from_secs(240);

/// A folder with the files of a test.
pub struct Place {
    folder: tempfile::TempDir,
    logs: tempfile::TempDir,
}

/// How a run ended.
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Place {
    pub fn new() -> Place {
        Place { folder: tempfile::tempdir().unwrap(), logs: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    fn files(&self) -> Vec<(PathBuf, u64)> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap().map(Result::unwrap);
        let mut files: Vec<(PathBuf, u64)> = entries.map(|e| (e.path(), e.metadata().unwrap().len())).collect();
        files.sort();
        files
    }

    /// Runs `binary` in the folder.
    pub fn run_binary(&self, binary: &str, args: &[&str]) -> Ended {
        let log = |name: &str| self.logs.path().join(name);
        let output = |name: &str| Stdio::from(File::create(log(name)).unwrap());
        let mut child = Command::new("sh")
            .args(["-c", &format!("ulimit -v {ADDRESS_SPACE}; exec \"$@\""), "sh", binary])
            .args(args)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(output("out"))
            .stderr(output("err"))
            .spawn()
            .unwrap();
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > LIMIT {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("{args:?} did not end in {LIMIT:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let text = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
        Ended { code: status.code(), stdout: text(&log("out")), stderr: text(&log("err")) }
    }

    /// Runs `tilewright`.
    pub fn run(&self, args: &[&str]) -> Ended {
        self.run_binary(env!("CARGO_BIN_EXE_tilewright"), args)
    }

    /// Refused with one error that has each of `shown`, and nothing is left behind.
    #[track_caller]
    pub fn refused(&self, args: &[&str], shown: &[&str]) {
        let before = self.files();
        let ended = self.run(args);
        ended.is_refused(args, shown);
        assert_eq!(self.files(), before, "{args:?} left something behind");
    }

    /// Succeeds.
    #[track_caller]
    pub fn runs(&self, args: &[&str]) -> String {
        let ended = self.run(args);
        let (err, out) = (cut(&ended.stderr), cut(&ended.stdout));
        assert_eq!(ended.code, Some(0), "{args:?}\n{err}\n{out}");
        ended.stdout
    }
}

fn cut(text: &str) -> String {
    text.chars().take(2000).collect()
}

impl Ended {
    #[track_caller]
    pub fn is_refused(&self, args: &[&str], shown: &[&str]) {
        let (err, out) = (cut(&self.stderr), cut(&self.stdout));
        assert!(matches!(self.code, Some(1 | 2)), "{args:?} ended with {:?}\n{err}\n{out}", self.code);
        assert_eq!(self.stderr.matches("error").count().min(1), 1, "{args:?}: no error\n{err}");
        assert!(self.stderr.matches("error[").count() <= 1, "{args:?}: more than one error\n{err}");
        for word in ["panicked", "overflowed its stack", "error[bug]", "RUST_BACKTRACE", "memory allocation of"] {
            assert!(!self.stderr.contains(word), "{args:?}: {word}\n{err}");
        }
        assert!(self.stderr.len() < 20_000, "{args:?}: an error of {} bytes\n{err}", self.stderr.len());
        for part in shown {
            assert!(self.stderr.contains(part), "{args:?}: `{part}` is not in\n{err}");
        }
    }
}

/// A safetensors file: name, dtype, shape and bytes of each tensor.
pub fn safetensors(tensors: &[(&str, &str, &[usize], Vec<u8>)]) -> Vec<u8> {
    let (mut header, mut data) = (String::from("{"), Vec::<u8>::new());
    for (name, dtype, shape, bytes) in tensors {
        let (start, end) = (data.len(), data.len() + bytes.len());
        let comma = if header.len() > 1 { "," } else { "" };
        header += &format!(
            "{comma}\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{start},{end}]}}"
        );
        data.extend(bytes);
    }
    header += "}";
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.extend(data);
    out
}
