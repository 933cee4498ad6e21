//! The record of this run, for a site's accounting (`--coracle-report`): begun before anything is done, written when all
//! has ended, whatever the end.
//!
//! Only who survives the application can write it: with a record the stub stays beside it. What ends the stub itself by
//! SIGKILL leaves none.

mod job;
mod sink;

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use coracle_api::{Ended, RECORD_VERSION, Record, RecordIo, Refused, Unpacked, rfc3339};
use coracle_format::hex;

use self::sink::Sink;
use crate::{
    cache::Cached,
    launch::{self, Caller, engines::Candidate},
    open::Bundle,
    options::Report,
    supervise::{Over, Usage},
};

/// A record that is being kept.
#[derive(Debug)]
pub struct Keeper {
    record: Record,
    began: Instant,
    sink: Sink,
}

impl Keeper {
    /// Begins one, and opens where it will go.
    ///
    /// # Errors
    /// In words, if that cannot be written.
    pub fn begin(to: &Report, bundle: &Bundle, caller: &Caller, began: Instant) -> Result<Self, String> {
        let node = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
        let sink = Sink::open(to, caller, &node)?;
        let manifest = bundle.manifest();
        let record = Record {
            record: RECORD_VERSION,
            coracle: env!("CARGO_PKG_VERSION").to_owned(),
            bundle: bundle.path().to_string_lossy().into_owned(),
            manifest: format!("sha256:{}", hex(bundle.manifest_digest())),
            tree: format!("sha256:{}", hex(bundle.index_digest())),
            source: manifest.provenance.source.clone(),
            image: manifest.provenance.manifest.clone(),
            node,
            job: job::of(|name| caller.var(name)?.to_str().map(str::to_owned)),
            uid: caller.uid,
            gid: caller.gid,
            start: time(began),
            ..Record::default()
        };
        Ok(Self { record, began, sink })
    }

    /// The tree is there.
    pub fn tree(&mut self, cached: &Cached, caller: &Caller) {
        let ready = self.began.elapsed().as_secs_f64();
        self.record.ready_s = ready;
        self.record.cache_hit = cached.hit;
        self.record.unpack = cached.stats.map(|stats| Unpacked {
            seconds: ready,
            bytes: stats.bytes,
            files: stats.inodes,
            threads: stats.threads,
        });
        self.record.user = launch::login_name(caller, &cached.dir);
    }

    /// What is to run.
    pub fn program(&mut self, program: Option<&std::ffi::OsString>) {
        self.record.program = program.map(|program| program.to_string_lossy().into_owned());
    }

    /// By which engine.
    pub fn engine(&mut self, engine: &str, refused: &[Candidate]) {
        self.record.engine = Some(engine.to_owned());
        let refusals = refused.iter().filter_map(|one| {
            let refusal = one.answer.as_ref().err()?;
            Some(Refused { engine: one.engine.name().to_owned(), reason: refusal.to_string() })
        });
        self.record.refusals = refusals.collect();
    }

    /// Writes it.
    ///
    /// # Errors
    /// In words, if it cannot be written.
    pub fn end(&mut self, end: End) -> Result<(), String> {
        let record = &mut self.record;
        record.wall_s = self.began.elapsed().as_secs_f64();
        let ended = match end {
            End::Over(Over { ended, usage: Usage { user, system, max_rss, io } }) => {
                record.user_s = user.as_secs_f64();
                record.system_s = system.as_secs_f64();
                record.max_rss_bytes = max_rss;
                record.io = io.map(|io| RecordIo {
                    read_chars: io.read_chars,
                    written_chars: io.written_chars,
                    read_bytes: io.read_bytes,
                    written_bytes: io.written_bytes,
                });
                ended
            }
            End::Failed(ended, error) => {
                record.error = error;
                ended
            }
        };
        match ended {
            Ended::Exited(code) => record.exit = Some(code),
            Ended::Signaled(signal) => record.signal = Some(signal),
        }
        let mut line = serde_json::to_string(record).map_err(|error| error.to_string())?;
        line.push('\n');
        self.sink.append(line.as_bytes())
    }
}

/// How the run came to its end.
#[derive(Debug)]
pub enum End {
    /// The application did.
    Over(Over),
    /// It was not started, and why, if it is not for a signal.
    Failed(Ended, Option<String>),
}

/// When that was, in UTC with milliseconds. A clock from before 1970 counts as 1970.
fn time(began: Instant) -> String {
    let then = SystemTime::now().checked_sub(began.elapsed()).unwrap_or(UNIX_EPOCH);
    let since = then.duration_since(UNIX_EPOCH).unwrap_or_default();
    let text = rfc3339(since.as_secs());
    format!("{}.{:03}Z", text.trim_end_matches('Z'), since.subsec_millis())
}
