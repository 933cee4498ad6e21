//! What may be wrong with a container's own files, beside its settings and its tree.

use std::{fs, io, sync::atomic::AtomicU64};

use coracle_api::{content_sum, kept_launcher};
use coracle_ledger::Ledger;

use super::{Container, runs::RunRecord};
use crate::artifacts;

impl Container {
    /// What is wrong with the ledger of its pretended root, in words; `None` if nothing is, or if there is none.
    #[must_use]
    pub fn damage_of_ledger(&self) -> Option<String> {
        let path = self.ledger();
        let why = match fs::read(&path) {
            Ok(bytes) => {
                let words: Vec<AtomicU64> =
                    bytes.as_chunks().0.iter().map(|word| AtomicU64::new(u64::from_ne_bytes(*word))).collect();
                if Ledger::open(&words, 0).is_ok() {
                    return None;
                }
                "it is cut short, or of another version".to_owned()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => error.to_string(),
        };
        Some(format!(
            "the ledger of what root gave away is damaged ({why}): remove {}, and owners and modes are the image's again",
            path.display()
        ))
    }

    /// Which record of a run is damaged, in words.
    #[must_use]
    pub fn damage_of_runs(&self) -> Option<String> {
        let entries = fs::read_dir(self.runs_directory()).ok()?.filter_map(Result::ok);
        let mut damaged: Vec<_> = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .filter(|path| {
                // One that was removed meanwhile is none.
                fs::read(path).is_ok_and(|bytes| serde_json::from_slice::<RunRecord>(&bytes).is_err())
            })
            .collect();
        damaged.sort();
        let first = damaged.first()?;
        Some(format!("the record of a run is damaged, and `ps` leaves it out: remove {}", first.display()))
    }

    /// What is wrong with the files that engines keep beside it from run to run, in words: the shim, descriptions of
    /// runs, the launcher for programs that they hand over.
    #[must_use]
    pub fn damage_of_made(&self) -> Option<String> {
        let launcher = kept_launcher(artifacts::STUB.len() as u64);
        let entries = fs::read_dir(self.directory().join("made")).ok()?.filter_map(Result::ok);
        let mut damaged: Vec<_> = entries
            .filter(|entry| {
                let name = entry.file_name();
                let Some(name) = name.to_str().filter(|_| entry.file_type().is_ok_and(|kind| kind.is_file())) else {
                    return false;
                };
                let sum = sum_in(name);
                if sum.is_none() && name != launcher {
                    return false;
                }
                // One that was removed meanwhile is none.
                fs::read(entry.path()).is_ok_and(|bytes| match sum {
                    Some(sum) => content_sum(&bytes) != sum,
                    None => bytes != artifacts::STUB,
                })
            })
            .map(|entry| entry.path())
            .collect();
        damaged.sort();
        let first = damaged.first()?;
        Some(format!("{} is not as it was written: remove it, and it is made anew", first.display()))
    }
}

/// The sum of a file's content that its name holds: `run-0123456789abcdef`, `shim-0123456789abcdef.so`.
fn sum_in(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".so").unwrap_or(name).rsplit_once('-')?.1;
    let is_sum = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_sum.then(|| u64::from_str_radix(digits, 16).ok())?
}
