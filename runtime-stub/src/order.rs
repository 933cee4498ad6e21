//! The bare stub as a launcher for others: `coracle run` writes an [`Order`] and executes the stub that it carries.
//!
//! So there is one launcher, and no threads of the caller's stand between it and `unshare(CLONE_NEWUSER)`. The stub stays
//! beside the program: it puts on record how the run ended, and starts what is to be done afterwards (`--rm`).

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read, Write as _},
    os::{
        fd::{FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    process::{Command, Stdio},
    time::SystemTime,
};

use coracle_api::{
    Access, Ended, Engine, HOLD, Host, LAY, NotStarted, ORDER_VERSION, Order, Request, RunError, SUBORDINATE, TAKE_OUT,
    TreeEdits,
};

use crate::{
    launch::{self, Caller, LaunchError, Memory, Plan, engines},
    report::{Voice, say, without_numbers},
    start::{FAILED, name_engine},
    supervise::{self, Duties, Over},
};

/// The only argument of a bare stub, followed by the descriptor to read.
const ARGUMENT: &str = "--coracle-launch=";

/// An order that cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The descriptor.
    #[error("{ARGUMENT}{0}: not an open descriptor to read an order from: it is for `coracle run` to give")]
    Descriptor(String),
    /// The order's bytes.
    #[error("the order cannot be read: {0}: use a stub and a coracle of the same version")]
    Read(#[source] io::Error),
    /// Another version's.
    #[error("the order is of version {found} and not {ORDER_VERSION}: use a stub and a coracle of the same version")]
    Version {
        /// What it says.
        found: u64,
    },
    /// No engine; `coracle` has no `explain`.
    #[error("no engine can run this here: {0}")]
    NoEngine(String),
    /// No engine.
    #[error(transparent)]
    Launch(LaunchError),
    /// A tree of the container's own.
    #[error("this engine needs a tree of the container's own, which could not be made: {0}")]
    OwnTree(String),
    /// Files edited for an engine, or not edited for another.
    #[error("{0}")]
    Edits(String),
    /// The child that runs the program.
    #[error("cannot start a process for the program: {0}: raise the limit on processes")]
    Fork(#[source] io::Error),
}

impl From<LaunchError> for OrderError {
    fn from(error: LaunchError) -> Self {
        match error {
            LaunchError::NoEngine { refusals } => Self::NoEngine(refusals),
            error => Self::Launch(error),
        }
    }
}

/// Carries out the order that the arguments name; none if they name none.
#[must_use]
pub fn start(caller: &Caller) -> Option<u8> {
    let [only] = caller.args.as_slice() else { return None };
    if only.as_bytes() == HOLD.as_bytes() {
        return Some(hold());
    }
    let descriptor = only.as_bytes().strip_prefix(ARGUMENT.as_bytes())?;
    let order = match read(descriptor) {
        Ok(order) => order,
        Err(error) => {
            say(&error.to_string());
            return Some(FAILED);
        }
    };
    let run = Run { order: &order, caller, started: Started::of(order.started) };
    Some(run.carry_out())
}

/// Is there, and nothing else.
fn hold() -> u8 {
    let told = writeln!(io::stdout(), "{}", std::process::id()).and_then(|()| io::stdout().flush());
    let ended = told.and_then(|()| io::copy(&mut io::stdin(), &mut io::sink()));
    if ended.is_ok() { 0 } else { FAILED }
}

fn read(descriptor: &[u8]) -> Result<Order, OrderError> {
    let wrong = || OrderError::Descriptor(OsStr::from_bytes(descriptor).to_string_lossy().into_owned());
    let fd: RawFd = std::str::from_utf8(descriptor).ok().and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
    if fd < 3 || !is_open(fd) {
        return Err(wrong());
    }
    // SAFETY: the descriptor is open, and whoever named it on the command line gave it to this process for good.
    let mut file = unsafe { File::from_raw_fd(fd) };
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(OrderError::Read)?;
    let malformed = |error: serde_json::Error| OrderError::Read(error.into());
    let Versioned { version: found } = serde_json::from_slice(&text).map_err(malformed)?;
    if found != u64::from(ORDER_VERSION) {
        return Err(OrderError::Version { found });
    }
    serde_json::from_slice(&text).map_err(malformed)
}

/// What an order of any version has; the rest is only understood if the version is ours.
#[derive(serde::Deserialize)]
struct Versioned {
    #[serde(default)]
    version: u64,
}

fn is_open(fd: RawFd) -> bool {
    // SAFETY: fcntl with these arguments touches no memory.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

fn close_on_exec(fd: RawFd) {
    // SAFETY: as above.
    unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
}

/// The pipe that tells a caller far away whether the program started.
struct Started(Option<RawFd>);

impl Started {
    fn of(fd: Option<RawFd>) -> Self {
        let fd = fd.filter(|fd| *fd > 2 && is_open(*fd));
        if let Some(fd) = fd {
            close_on_exec(fd);
        }
        Self(fd)
    }

    fn close(&self) {
        if let Some(fd) = self.0 {
            // SAFETY: the caller gave the descriptor to this process for good, and nothing else here uses it.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }

    fn failed(&self, status: u8, message: &str) {
        let Some(fd) = self.0 else { return };
        let news = NotStarted { status, message: without_numbers(message) };
        let mut line = serde_json::to_vec(&news).unwrap_or_default();
        line.push(b'\n');
        // SAFETY: as above; `ManuallyDrop` leaves closing to the end of the process.
        let mut pipe = std::mem::ManuallyDrop::new(unsafe { File::from_raw_fd(fd) });
        // Who does not listen any more need not be told.
        let _ = pipe.write_all(&line);
    }
}

struct Run<'a> {
    order: &'a Order,
    caller: &'a Caller,
    started: Started,
}

impl Run<'_> {
    fn carry_out(&self) -> u8 {
        let status = self.plan_and_run(self.order).unwrap_or_else(|error| {
            say(&error.to_string());
            self.started.failed(FAILED, &error.to_string());
            FAILED
        });
        self.put_on_record(status);
        self.do_finally();
        status
    }

    fn put_on_record(&self, status: u8) {
        if let Some(record) = &self.order.record
            && let Err(error) = put_on_record(record, status)
        {
            say(&format!(
                "{}: cannot be written: {error}: `coracle ps` will not know the exit status",
                record.display()
            ));
        }
    }

    fn plan_and_run(&self, order: &Order) -> Result<u8, OrderError> {
        let voice = Voice { verbose: order.verbose, quiet: false };
        let mut plan = launch::container::plan(order, self.caller)?;
        for (topic, text) in &plan.notes {
            voice.note(&format!("{topic}: {text}"));
        }
        let engine = match self.choose(order, &plan, voice) {
            Ok(engine) => engine,
            Err(error) => {
                clean(plan, voice);
                return Err(error);
            }
        };
        let Some(engine) = engine else {
            clean(plan, voice);
            return self.plan_and_run(&with_own_tree(order)?);
        };
        if let Err(error) = settle_edits(order, &mut plan, engine, voice) {
            clean(plan, voice);
            return Err(error);
        }
        if !engine.mounts() && plan.spec.temporary.iter().any(|(_, asked)| asked.is_limited()) {
            voice.warn(&format!(
                "engine {}: a tmpfs is a plain directory of memory here: size, number of files and noexec are not enforced",
                engine.name()
            ));
        }
        self.mark_subordinate(&plan, engine, voice);
        if order.recording.is_none() {
            name_engine(&mut plan.spec, engine);
        }
        plan.spec.started = self.started.0;
        let duties = Duties {
            meanwhile: || self.started.close(),
            clean: |plan| clean(plan, voice),
            orphaned: |over: Over| {
                self.put_on_record(shell_status(over.ended));
                self.do_finally();
                self.drop_recording();
            },
        };
        let guest = |plan: &Plan| match engine.run(&plan.spec) {
            Ok(ended) => shell_status(ended),
            Err(error) => self.not_started(&error),
        };
        let over = supervise::beside(None, plan, guest, duties);
        over.map(|over| shell_status(over.ended)).map_err(OrderError::Fork)
    }

    /// Leaves a mark where files may come to belong to subordinate ids, and says so where an engine cannot reach them.
    fn mark_subordinate(&self, plan: &Plan, engine: &dyn Engine, voice: Voice) {
        let Some(mark) = self.order.made.as_ref().map(|made| made.with_file_name(SUBORDINATE)) else { return };
        if !engine.mounts() && mark.exists() {
            let id = mark.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
            voice.warn(&format!(
                "engine {}: what this container's programs gave to other users under `namespaces` belongs to your subordinate ids, and may be closed to it: `coracle setup --fixperm {}` makes it yours",
                engine.name(),
                id.get(..12).unwrap_or(&id)
            ));
        }
        if engine.mounts() && plan.spec.identity.subordinate.is_some() && !mark.exists() {
            // Without it `coracle export` and others say that they may not read such files.
            let _ = fs::write(&mark, "");
        }
    }

    fn not_started(&self, error: &RunError) -> u8 {
        if let (RunError::Step { .. } | RunError::Refused(_), Some(made)) = (error, &self.order.made) {
            // It may be the engine's doing, and another one that accepts now.
            Memory::forget(made);
        }
        let text = match error {
            // There is no image, but the host.
            RunError::NotFound { program, path } if self.order.recording.is_some() => {
                format!("{program}: not found: give its path, or a name on PATH ({path})")
            }
            error => error.to_string(),
        };
        say(&text);
        self.started.failed(error.exit_code(), &text);
        error.exit_code()
    }

    /// The engine; none if the one that would run this needs a tree of the container's own, which it has not yet.
    fn choose(&self, order: &Order, plan: &Plan, voice: Voice) -> Result<Option<&'static dyn Engine>, OrderError> {
        let asked = order.engine.as_deref().filter(|name| !name.eq_ignore_ascii_case("auto"));
        // Asking costs a process; who accepted the last run of this kind accepts this one.
        let memory = order.made.as_deref().filter(|_| asked.is_none() && !voice.verbose);
        let memory = memory.map(|made| Memory::read(made, &order.root, &plan.request));
        let known = memory.as_ref().and_then(|memory| memory.engine.as_deref());
        if let Some(engine) = known.and_then(|name| engines::find(&engines::ENGINES, name)) {
            return Ok(suits(engine, order).then_some(engine));
        }
        let host = Host::read(self.caller.var("PATH").map(OsStr::to_owned));
        // Sharing files is no reason for a slower engine: the one for a tree of its own is the one.
        let request = Request { writable: plan.request.writable && order.own.is_none(), ..plan.request };
        let (engine, refused) = engines::choose(&engines::ENGINES, asked, &host, &order.facts, &request)?;
        for one in &refused {
            if let Err(refusal) = &one.answer {
                voice.note(&format!("engine {}: {refusal}", one.engine.name()));
            }
        }
        voice.note(&format!("engine: {}", engine.name()));
        if order.own.is_some() {
            let answer = engine.probe(&host, &order.facts, &plan.request);
            if let Err(refusal) = &answer {
                voice.note(&format!("engine {}: changes apart from the image: {refusal}", engine.name()));
            }
            if answer.is_err() || !suits(engine, order) {
                return Ok(None);
            }
        }
        for note in engine.notes(&host, &plan.request) {
            voice.warn(&format!("engine {}: {note}", engine.name()));
        }
        if let Some(memory) = memory {
            memory.write(engine.name());
        }
        Ok(Some(engine))
    }

    /// Nobody is left to make anything of it.
    fn drop_recording(&self) {
        let Some(recording) = &self.order.recording else { return };
        // What cannot be removed is not ours to remove.
        for directory in [Some(recording), self.order.made.as_ref()].into_iter().flatten() {
            let _ = fs::remove_dir_all(directory);
        }
        let _ = recording.parent().map(fs::remove_dir);
    }

    /// What is to be done when all has ended, without the lease that the guest had.
    fn do_finally(&self) {
        let [program, args @ ..] = self.order.finally.as_slice() else { return };
        if let Some(lease) = self.order.lease {
            // SAFETY: the caller gave the descriptor to this run for good; whoever held a copy has ended.
            drop(unsafe { OwnedFd::from_raw_fd(lease) });
        }
        let ran = Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).status();
        if let Err(error) = ran {
            say(&format!("{}: cannot be run: {error}: do by hand what it was to do: {args:?}", program.display()));
        }
    }
}

/// Whether an engine can use what a container has changed so far of the image's tree that it stands on.
fn suits(engine: &dyn Engine, order: &Order) -> bool {
    let (Access::CopyOnWrite { changes }, Some(_)) = (&order.access, &order.own) else { return true };
    let has = |name: &str| changes.join(name).symlink_metadata().is_ok();
    if engine.overlays() {
        return !has("view");
    }
    // An overlay's directories in which nothing is are nobody's changes.
    for name in ["work/work", "work/index", "work", "upper"] {
        if engine.links() {
            let _ = fs::remove_dir(changes.join(name));
        }
    }
    engine.links() && !has("upper")
}

/// Has files of the container's tree edited if the engine wants that, and made as they were if it does not.
fn settle_edits(order: &Order, plan: &mut Plan, engine: &dyn Engine, voice: Voice) -> Result<(), OrderError> {
    let Some(edits) = order.edits.as_ref() else { return Ok(()) };
    let asked = order.engine.as_deref().filter(|name| !name.eq_ignore_ascii_case("auto"));
    if !engine.wants_edits(asked) {
        let taken = if edits.any { change_edits(order, edits, TAKE_OUT).map(|_| ()) } else { Ok(()) };
        return taken.map_err(|why| {
            let why = if why.contains(" is running") { "something else runs in it" } else { &why };
            OrderError::Edits(format!(
                "programs of the tree are edited for the preload engine, and another is asked for: {why}: let that end, or run this with --execmode=F3, too"
            ))
        });
    }
    let laid = match &edits.laid {
        Some(laid) => laid.clone(),
        None => match change_edits(order, edits, LAY) {
            Ok(said) => serde_json::from_slice(&said).map_err(|error| OrderError::Read(error.into()))?,
            // Whoever names the way gets that one or none; and what is half edited is for nobody.
            Err(why) if edits.any || asked.is_some_and(|asked| !asked.eq_ignore_ascii_case(engine.name())) => {
                return Err(OrderError::Edits(format!("its programs cannot be edited for the preload engine: {why}")));
            }
            Err(why) => {
                voice.note(&format!("{why}; programs are started by their loader instead, which takes longer"));
                return Ok(());
            }
        },
    };
    voice.note(&format!(
        "edits: the tree's programs name its own loader; as they were they are in {}",
        laid.pristine.display()
    ));
    plan.spec.originals = Some(laid.pristine);
    plan.spec.loaders = laid.loaders;
    Ok(())
}

/// Runs the command for it; what it prints, or why it failed.
fn change_edits(order: &Order, edits: &TreeEdits, what: &str) -> Result<Vec<u8>, String> {
    let [program, args @ ..] = edits.command.as_slice() else { return Err("nobody said how".to_owned()) };
    let mut command = Command::new(program);
    command.args(args).arg(what).args(order.lease.map(|lease| lease.to_string())).stdin(Stdio::null());
    let ran = command.output().map_err(|error| format!("{}: {error}", program.display()))?;
    if ran.status.success() {
        return Ok(ran.stdout);
    }
    let said = String::from_utf8_lossy(&ran.stderr);
    let last = said.lines().last().unwrap_or("it was killed");
    Err(last.strip_prefix("coracle: ").unwrap_or(last).to_owned())
}

/// Has the container's tree made its own.
fn with_own_tree(order: &Order) -> Result<Order, OrderError> {
    let failed = |why: String| OrderError::OwnTree(why);
    let Some(own) = &order.own else { return Err(failed("nobody said how".to_owned())) };
    let [program, args @ ..] = own.command.as_slice() else { return Err(failed("nobody said how".to_owned())) };
    let ran = Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).output();
    let ran = ran.map_err(|error| failed(format!("{}: {error}", program.display())))?;
    if !ran.status.success() {
        // A failure is one line, whoever has it.
        let said = String::from_utf8_lossy(&ran.stderr);
        let last = said.lines().last().unwrap_or("it was killed");
        return Err(failed(last.strip_prefix("coracle: ").unwrap_or(last).to_owned()));
    }
    let _ = io::stderr().write_all(&ran.stderr);
    // The tree is made of the true files, so no edits are left.
    let edits = order.edits.as_ref().map(|edits| TreeEdits { any: false, laid: None, ..edits.clone() });
    Ok(Order { root: own.root.clone(), access: Access::Direct, truths: None, own: None, edits, ..order.clone() })
}

/// An exit status as a shell counts it.
fn shell_status(ended: Ended) -> u8 {
    match ended {
        Ended::Exited(status) => status,
        Ended::Signaled(signal) => u8::try_from(128 + signal).unwrap_or(255),
    }
}

fn clean(plan: Plan, voice: Voice) {
    if let Some(Err(error)) = plan.own.map(|own| own.remove(&plan.spec.identity)) {
        voice.warn(&error.to_string());
    }
}

/// Adds to a run's record how it ended; whoever reads sees the old one or the new.
fn put_on_record(path: &Path, status: u8) -> io::Result<()> {
    let mut record: serde_json::Map<String, serde_json::Value> = match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text)?,
        // Removed with its container meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    record.insert("status".to_owned(), status.into());
    record.insert("ended".to_owned(), now.into());
    let dir = path.parent().unwrap_or(Path::new("/"));
    launch::write_beside(dir, path, &serde_json::to_vec_pretty(&record)?)
}
