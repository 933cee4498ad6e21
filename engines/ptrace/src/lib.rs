//! The `ptrace` engine: interception from outside, by a tracer process.
//!
//! Works where user namespaces are forbidden: nothing is needed but the right to trace one's own children. What a call means
//! is [`coracle_intercept`]'s matter; here is the transport: stops, registers, memory ([`tracer`]), the filter that chooses
//! which calls stop ([`filter`]), and how a program is started by the guest's own loader ([`loading`]).
//!
//! Two variants, by udocker's names: `P1` stops the calls of the table alone, by a seccomp filter; `P2` stops every call,
//! and is what is left where filters are missing. The process that was to become the guest stays in front, and ends as the
//! guest's first process does; the tracer is a child of it ([`front`]) and stays as long as any guest lives. Nothing
//! survives the tracer (`PTRACE_O_EXITKILL`).

mod copying;
mod cow;
mod deep;
mod filter;
mod follow;
mod front;
mod lending;
mod life;
mod loading;
mod memory;
mod nested;
mod outside;
mod peer;
mod person;
mod probe;
mod process;
mod procfs;
mod program;
mod recorder;
mod registers;
mod request;
mod sandbox;
mod script;
mod shortage;
mod shown;
mod sockets;
mod spring;
mod stack;
mod start;
mod tracee;
mod tracer;
mod watch;
mod window;

use std::{
    cell::RefCell,
    ffi::CString,
    fs, io,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::MetadataExt,
    },
    path::Path,
};

use coracle_api::{
    Access, Ended, Engine, Host, ImageFacts, LaunchSpec, PortMap, Protocol, Refusal, Request, RunError, Unshare,
    exec::Prepared,
};
use coracle_intercept::{Identity, Kind, Port, Rules};
use coracle_layout::{Layout, Mapped, Names};
use coracle_view::{Asked, View};

use crate::{person::Person, recorder::Recorder, start::Child, tracer::Tracer};

/// The engine.
#[derive(Debug, Clone, Copy)]
pub struct Ptrace;

impl Engine for Ptrace {
    fn name(&self) -> &'static str {
        "ptrace"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["P1", "P2"]
    }

    fn stays(&self) -> bool {
        true
    }

    fn links(&self) -> bool {
        true
    }

    fn probe(&self, _host: &Host, facts: &ImageFacts, request: &Request) -> Result<(), Refusal> {
        if !matches!(facts.architecture.as_str(), "" | "amd64" | "386") {
            return Err(Refusal::new(format!("programs for {} cannot run on this processor", facts.architecture)));
        }
        if request.isolated {
            return Err(Refusal::new("a tracer isolates nothing").advise("leave out `isolated`, or use `namespaces`"));
        }
        if request.unshare != Unshare::default() {
            return Err(Refusal::new("namespaces were asked for (a host name needs one), and a tracer makes none")
                .advise("leave that out, or use `namespaces`"));
        }
        probe::probe().map(drop)
    }

    fn notes(&self, _host: &Host, _request: &Request) -> Vec<String> {
        let Some(error) = probe::filter_refusal() else { return Vec::new() };
        vec![format!("no seccomp filter can be had here ({error}), so every call is stopped (P2), which is slower")]
    }

    fn run(&self, spec: &LaunchSpec) -> Result<Ended, RunError> {
        let allowed = probe::probe().map_err(RunError::Refused)?;
        let asked = spec.variant.as_deref().is_some_and(|variant| variant.eq_ignore_ascii_case("P2"));
        let every = asked || !allowed.filter;
        let prepared = Prepared::new(&spec.argv, &spec.env)?.of(spec.program.as_deref())?;
        let view = match &spec.access {
            Access::CopyOnWrite { changes } => {
                Some(cow::open(&Asked { tree: &spec.root, truths: spec.truths.as_deref(), changes })?)
            }
            Access::ReadOnly | Access::Direct => None,
        };
        let root = view.as_ref().map_or(spec.root.as_path(), View::root);
        let mut layout = Layout::new(spec, root)?;
        let cwd = layout.enter(spec)?;
        let cwd = CString::new(cwd.as_os_str().as_bytes())
            .map_err(|error| RunError::step("enter the working directory", error.into()))?;
        let binds = layout.binds();
        let hostname = spec.hostname.clone().map(OsStringExt::into_vec);
        let ports: Vec<Port> = spec.ports.iter().filter(|map| map.differs()).map(port).collect();
        let identity = &spec.identity;
        // Only a tree that nobody changes is as its table says.
        let shared = spec.names.as_ref().filter(|_| spec.access == Access::ReadOnly);
        let names = shared.and_then(|path| Names::map(path, &spec.root));
        let places = layout.view(&binds)?;
        let places = match names.as_ref().and_then(Names::table) {
            Some(table) => places.with_table(table),
            None => places,
        };
        let ledger = open_ledger(spec, root, view.as_ref())?;
        let rules = Rules {
            view: places,
            identity: Identity {
                uid: identity.uid,
                gid: identity.gid,
                host_uid: identity.host_uid,
                host_gid: identity.host_gid,
            },
            hostname: hostname.as_deref(),
            kernel: spec.kernel.as_deref().map(str::as_bytes),
            ledger: ledger.as_ref().and_then(Mapped::ledger),
            ports: &ports,
            unlisted: layout.is_unlisted(),
            marks: view.as_ref().map(View::marks),
        };
        let step = |what: &'static str| move |error: io::Error| RunError::step(what, error);
        let mark = mark().map_err(step("ask for random numbers"))?;
        let old_order = Host::read(None).kernel < (4, 8);
        let person = Person::new(identity.uid, identity.gid, &identity.groups);
        let filter = (!every).then(|| filter::program(&rules, mark));
        front::beside(spec, |tracing| {
            let front::Tracing { line, tell, mask } = tracing;
            let mut tracer = Tracer::new(rules, view.as_ref(), (every, old_order), mark, person, line)
                .map_err(step("make the memory shared with guests"))?;
            let recorder = spec.recording.as_deref().map(Recorder::new).transpose();
            tracer.recorder = recorder.map_err(step("begin the recording"))?.map(RefCell::new);
            let child = Child::fork(&prepared, &cwd, filter.as_deref(), tell, mask)?;
            front::stand_aside();
            child.seize(!every).map_err(step("trace the guest's first process"))?;
            tracer.adopt(child.pid).map_err(step("stop the guest's first process"))?;
            child.go().map_err(step("start the guest's first process"))?;
            tracer.run().map_err(step("wait for the guest"))
        })
    }
}

/// The ledger of a run that needs one.
fn open_ledger(spec: &LaunchSpec, root: &Path, view: Option<&View>) -> Result<Option<Mapped>, RunError> {
    let step = |what: String| move |error: io::Error| RunError::step(what, error);
    let tree = || fs::metadata(root).map(|root| root.dev());
    let pretends = (spec.identity.uid, spec.identity.gid) != (spec.identity.host_uid, spec.identity.host_gid);
    // A view keeps its own.
    let path = spec.ledger.clone().or_else(|| view.map(View::ledger)).filter(|_| pretends);
    match &path {
        Some(path) => {
            let ledger = tree().and_then(|home| Mapped::of_file(path, root, home));
            ledger.map(Some).map_err(step(format!("use the record of owners {}", path.display())))
        }
        None if pretends => {
            let ledger = tree().and_then(Mapped::nameless);
            ledger.map(Some).map_err(step("make the record of owners".to_owned()))
        }
        None => Ok(None),
    }
}

fn port(map: &PortMap) -> Port {
    let kind = match map.protocol {
        Protocol::Tcp => Kind::Stream,
        Protocol::Udp => Kind::Datagram,
    };
    Port { address: map.address, host: map.host, guest: map.guest, kind }
}

/// What only our own loader knows.
fn mark() -> io::Result<u64> {
    let mut bytes = [0; 8];
    // SAFETY: getrandom writes at most as many bytes as the buffer holds.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if usize::try_from(got) == Ok(bytes.len()) {
        Ok(u64::from_ne_bytes(bytes))
    } else {
        Err(io::Error::last_os_error())
    }
}
