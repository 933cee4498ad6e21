//! Writes the description of a run, to try the shim without an engine:
//!
//!     describe OUT ROOT SHIM [ro] [root] [names=FILE] [HOST:GUEST[:ro]]…
//!
//! then `CORACLE_RUN=OUT ROOT/lib64/ld-linux-x86-64.so.2 --library-path … --preload SHIM ROOT/bin/ls /`.

use std::os::unix::ffi::{OsStrExt, OsStringExt};

use coracle_entry::{Bind, Facts, Text};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<Vec<u8>> = std::env::args_os().skip(1).map(OsStringExt::into_vec).collect();
    let [out, root, shim, rest @ ..] = &args[..] else { return Err("describe OUT ROOT SHIM …".into()) };
    let mut facts = Facts::default();
    facts.root_read_only = rest.iter().any(|arg| arg == b"ro");
    facts.set(Text::Root, root);
    facts.set(Text::Shim, shim);
    // SAFETY: they take nothing and cannot fail.
    facts.host_ids = unsafe { (getuid(), getgid()) };
    facts.ids = if rest.iter().any(|arg| arg == b"root") { (0, 0) } else { facts.host_ids };
    for arg in rest {
        if let Some(names) = arg.strip_prefix(b"names=") {
            facts.set(Text::Names, names);
        } else if arg.contains(&b':') {
            let parts: Vec<&[u8]> = arg.split(|byte| *byte == b':').collect();
            facts.binds.push(Bind { host: parts[0], guest: parts[1], read_only: parts.len() > 2 });
        }
    }
    let kept = coracle_paths::arrange(&mut facts.binds);
    facts.binds.truncate(kept);
    std::fs::write(std::ffi::OsStr::from_bytes(out), facts.write().ok_or("too long")?)?;
    Ok(())
}

unsafe extern "C" {
    fn getuid() -> u32;
    fn getgid() -> u32;
}
