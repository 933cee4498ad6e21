//! Does this node let us? Found by trying; explained by what the kernel tells of itself.
//!
//! clone(2) makes a child in new namespaces that shares our memory while we wait, as vfork does: it costs no copy of the
//! address space, and works in a process with threads, where unshare(CLONE_NEWUSER) would not. The child does what a run
//! does: it maps its ids, and mounts. A security module that lets a namespace be made but gives no power in it
//! (AppArmor on Ubuntu) is seen only there.

use std::{fs, io, path::Path};

use coracle_api::{Host, Refusal, Request};

use crate::mounts::mount_points;

/// How far the child came, and the error that stopped it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopped {
    Namespace(i32),
    GroupMap(i32),
    UserMap(i32),
    Mount(i32),
    Overlay(i32),
}

/// What the child needs, made before it starts: it must not allocate.
struct Plan {
    group_map: String,
    user_map: String,
    overlay: bool,
    fresh_proc: bool,
    stopped: Option<Stopped>,
    /// Whether a new pid namespace could mount its own `/proc`.
    proc_refused: bool,
}

/// The answer to [`coracle_api::Engine::probe`].
pub(crate) fn probe(host: &Host, request: &Request) -> Result<(), Refusal> {
    let stopped = attempt(host, request).map_err(Stopped::Namespace).and_then(|plan| plan.stopped.map_or(Ok(()), Err));
    stopped.map_err(|stopped| explain(stopped, host, request))
}

/// Whether a pid namespace made here can have a `/proc` that shows only its own processes.
pub(crate) fn own_proc(host: &Host) -> bool {
    let request = Request { unshare: coracle_api::Unshare { pid: true, ..Default::default() }, ..Default::default() };
    attempt(host, &request).is_ok_and(|plan| !plan.proc_refused)
}

fn attempt(host: &Host, request: &Request) -> Result<Plan, i32> {
    let id = |root: bool, own: u32| if root { 0 } else { own };
    let mut plan = Plan {
        group_map: format!("{} {} 1", id(request.root, host.gid), host.gid),
        user_map: format!("{} {} 1", id(request.root, host.uid), host.uid),
        overlay: request.writable,
        fresh_proc: request.unshare.pid,
        stopped: None,
        proc_refused: false,
    };
    let wanted = [
        (request.unshare.pid, libc::CLONE_NEWPID),
        (request.unshare.ipc, libc::CLONE_NEWIPC),
        (request.unshare.uts, libc::CLONE_NEWUTS),
        (request.unshare.net, libc::CLONE_NEWNET),
    ];
    let namespaces = wanted.iter().filter(|(asked, _)| *asked).fold(0, |flags, (_, flag)| flags | flag);
    let flags =
        libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_NEWUSER | libc::CLONE_NEWNS | namespaces | libc::SIGCHLD;
    let mut stack = vec![0_u128; 2048];
    let end = stack.as_mut_ptr_range().end;
    // SAFETY: the child runs `child` on `stack`, which nobody else uses, while CLONE_VFORK keeps this thread waiting, so
    // `plan` and `stack` outlive it and are not touched meanwhile. `child` makes system calls only.
    let pid = unsafe { libc::clone(child, end.cast(), flags, (&raw mut plan).cast()) };
    if pid < 0 {
        return Err(io::Error::last_os_error().raw_os_error().unwrap_or(0));
    }
    // SAFETY: waits for the child made above; a null status pointer is allowed.
    while unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) } < 0
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
    Ok(plan)
}

/// Runs in the child: no allocation, no lock, no return to the parent's frames.
extern "C" fn child(plan: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `attempt` passes its plan, and waits.
    let plan = unsafe { &mut *plan.cast::<Plan>() };
    if let Err(stopped) = try_it(plan) {
        plan.stopped = Some(stopped);
    }
    // SAFETY: ends the child alone; the process shares memory with its parent, whose exit handlers must not run.
    unsafe { libc::_exit(0) }
}

fn try_it(plan: &mut Plan) -> Result<(), Stopped> {
    match write(c"/proc/self/setgroups", b"deny") {
        Ok(()) | Err(libc::ENOENT) => {}
        Err(errno) => return Err(Stopped::GroupMap(errno)),
    }
    write(c"/proc/self/gid_map", plan.group_map.as_bytes()).map_err(Stopped::GroupMap)?;
    write(c"/proc/self/uid_map", plan.user_map.as_bytes()).map_err(Stopped::UserMap)?;
    // A directory that nothing is mounted below, so that it costs the same on a node with thousands of mounts.
    // SAFETY: all strings are literals or null where mount(2) reads none.
    let done = unsafe {
        libc::mount(c"/proc/self".as_ptr(), c"/".as_ptr(), std::ptr::null(), libc::MS_BIND, std::ptr::null())
    };
    check(done).map_err(Stopped::Mount)?;
    if plan.overlay {
        overlay().map_err(Stopped::Overlay)?;
    }
    if plan.fresh_proc {
        // SAFETY: as above.
        let done = unsafe {
            libc::mount(c"proc".as_ptr(), c"/proc".as_ptr(), c"proc".as_ptr(), libc::MS_NOSUID, std::ptr::null())
        };
        plan.proc_refused = check(done).is_err();
    }
    Ok(())
}

/// Asks for an overlay without layers: who may mount one is told that a layer is missing (`EINVAL`), who may not gets
/// `EPERM`, a kernel without overlays says `ENODEV`, one without fsopen(2) `ENOSYS` (and is too old anyway).
fn overlay() -> Result<(), i32> {
    // SAFETY: all strings are literals or null where mount(2) reads none.
    let done = unsafe {
        libc::mount(c"overlay".as_ptr(), c"/".as_ptr(), c"overlay".as_ptr(), 0, c"userxattr".as_ptr().cast())
    };
    match check(done) {
        Err(libc::EINVAL) | Ok(()) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn write(path: &std::ffi::CStr, text: &[u8]) -> Result<(), i32> {
    // SAFETY: `path` ends with NUL, `text` is as long as said, and the descriptor is ours.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd < 0 {
            return Err(*libc::__errno_location());
        }
        let written = libc::write(fd, text.as_ptr().cast(), text.len());
        let errno = *libc::__errno_location();
        libc::close(fd);
        if written < 0 { Err(errno) } else { Ok(()) }
    }
}

fn check(done: libc::c_int) -> Result<(), i32> {
    // SAFETY: this thread's own errno.
    if done == 0 { Ok(()) } else { Err(unsafe { *libc::__errno_location() }) }
}

fn explain(stopped: Stopped, host: &Host, request: &Request) -> Refusal {
    let (what, errno) = match stopped {
        Stopped::Namespace(errno) => ("user namespaces are refused", errno),
        Stopped::GroupMap(errno) => ("a user namespace can be made, but not its group map", errno),
        Stopped::UserMap(errno) => ("a user namespace can be made, but not its user map", errno),
        Stopped::Mount(errno) => ("a user namespace can be made, but nothing can be mounted in it", errno),
        Stopped::Overlay(errno) => return no_overlay(errno, host),
    };
    let what = format!("{what} ({})", io::Error::from_raw_os_error(errno));
    if let Some((setting, advice)) = blame(stopped, errno, host, request) {
        return Refusal::new(format!("{what}: {setting}")).advise(advice);
    }
    Refusal::new(what)
}

/// The setting that explains an error, and what to do about it.
fn blame(stopped: Stopped, errno: i32, host: &Host, request: &Request) -> Option<(String, String)> {
    let text = |setting: &str, advice: &str| Some((setting.to_owned(), advice.to_owned()));
    if let Stopped::Namespace(errno) = stopped {
        for limit in limits(request) {
            if sysctl(limit) == Some(0) {
                return text(
                    &format!("{} is 0", limit.replace('/', ".")),
                    &format!("an administrator can raise it: sysctl -w {}=10000", limit.replace('/', ".")),
                );
            }
        }
        if sysctl("kernel/unprivileged_userns_clone") == Some(0) {
            return text(
                "kernel.unprivileged_userns_clone is 0",
                "an administrator can allow them: sysctl -w kernel.unprivileged_userns_clone=1",
            );
        }
        match errno {
            libc::ENOSPC | libc::EUSERS => {
                return text(
                    "this user has as many as user.max_user_namespaces allows, or they are nested more than 32 deep",
                    "end other containers, or ask the administrator to raise the limit",
                );
            }
            libc::EINVAL | libc::ENOSYS => {
                return text(
                    "the kernel is built or booted without them",
                    "on RHEL 7 an administrator can boot with user_namespace.enable=1 and set user.max_user_namespaces",
                );
            }
            _ => {}
        }
        if !mapped("uid", host.uid) || !mapped("gid", host.gid) {
            return text(
                "this process's user or group has no place in the user namespace around it",
                "start it as a user that the container knows",
            );
        }
        if in_chroot() {
            return text(
                "this process is in a chroot, where the kernel refuses them",
                "enter the directory by pivot_root instead of chroot",
            );
        }
        if filtered() {
            return text(
                "a seccomp filter around this process forbids them, as container runtimes install",
                "start the container with --security-opt seccomp=unconfined, or choose another engine",
            );
        }
    }
    if sysctl("kernel/apparmor_restrict_unprivileged_userns").is_some_and(|value| value != 0) {
        return text(
            "AppArmor restricts them: kernel.apparmor_restrict_unprivileged_userns is 1",
            "an administrator can set it to 0, or install an AppArmor profile for this program that has the rule \"userns,\"",
        );
    }
    if matches!(errno, libc::EPERM | libc::EACCES) {
        if !matches!(stopped, Stopped::Namespace(_)) && filtered() {
            return text(
                "a seccomp filter or security module around this process forbids it, as container runtimes install",
                "start the container with --security-opt seccomp=unconfined --security-opt apparmor=unconfined, or choose another engine",
            );
        }
        return text("a security module of this kernel, probably", "ask the administrator, or choose another engine");
    }
    None
}

/// The per-user limits that this request runs into, as paths below /proc/sys.
fn limits(request: &Request) -> impl Iterator<Item = &'static str> {
    [
        (true, "user/max_user_namespaces"),
        (true, "user/max_mnt_namespaces"),
        (request.unshare.pid, "user/max_pid_namespaces"),
        (request.unshare.ipc, "user/max_ipc_namespaces"),
        (request.unshare.uts, "user/max_uts_namespaces"),
        (request.unshare.net, "user/max_net_namespaces"),
    ]
    .into_iter()
    .filter_map(|(asked, limit)| asked.then_some(limit))
}

fn no_overlay(errno: i32, host: &Host) -> Refusal {
    let error = io::Error::from_raw_os_error(errno);
    let (major, minor) = host.kernel;
    match errno {
        libc::ENODEV => Refusal::new(format!("this kernel has no overlayfs ({error}), which a writable run needs"))
            .advise("an administrator can load the module: modprobe overlay"),
        _ if !host.kernel_at_least(5, 11) => Refusal::new(format!(
            "a writable run needs an overlay mounted by an ordinary user, which Linux has since 5.11; this is {major}.{minor} ({error})"
        )),
        _ => Refusal::new(format!("a writable run needs an overlay, and this node refuses to mount one ({error})")),
    }
}

fn sysctl(name: &str) -> Option<i64> {
    fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?.trim().parse().ok()
}

/// Whether our user namespace maps this id; of the first one, every id.
fn mapped(kind: &str, id: u32) -> bool {
    let Ok(map) = fs::read_to_string(format!("/proc/self/{kind}_map")) else { return true };
    map.lines().any(|row| {
        let mut numbers = row.split_ascii_whitespace().filter_map(|number| number.parse::<u64>().ok());
        let (first, count) = (numbers.next(), numbers.nth(1));
        first.zip(count).is_some_and(|(first, count)| (first..first + count).contains(&u64::from(id)))
    })
}

/// In a chroot no mount's place is `/`, unless the directory happens to be a mount point.
fn in_chroot() -> bool {
    let places = mount_points();
    !places.is_empty() && !places.iter().any(|place| place == Path::new("/"))
}

/// Whether a seccomp filter is installed on this process.
fn filtered() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.split_ascii_whitespace().eq(["Seccomp:", "2"]))
}
