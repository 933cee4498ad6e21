//! From a specification to the runtime's command line.
//!
//! `-B SOURCE:DESTINATION` splits at colons and commas, so a path that holds one goes through `--mount`, whose fields are
//! CSV (apptainer 1.0, SingularityCE 3.9 and newer).

use std::{ffi::OsString, os::unix::ffi::OsStrExt, path::Path};

use coracle_api::{Access, Bind, Devices, LaunchSpec, Refusal};

/// What the runtime would show by itself.
const HABITS: &str = "home,tmp,cwd,hostfs,bind-paths";

/// Everything between the runtime's name and the program.
pub(crate) fn of(spec: &LaunchSpec) -> Result<Vec<OsString>, Refusal> {
    let mut arguments: Vec<OsString> =
        ["--silent", "exec", "--no-home", "--no-mount", HABITS, "--pwd", "/"].map(OsString::from).into();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(OsString::from));
    let identity = &spec.identity;
    if identity.uid == 0 && identity.host_uid != 0 {
        add(&["--fakeroot"]);
    } else if identity.uid != identity.host_uid {
        return Err(Refusal::new(format!("apptainer runs a program as you or as root, not as uid {}", identity.uid))
            .advise("use `ptrace`, or another user"));
    } else if identity.uid == 0 {
        // Inside containers root lacks capabilities that the runtime insists on; in a user namespace it needs none.
        add(&["--userns"]);
    }
    match spec.devices {
        Devices::Host => {}
        Devices::Minimal { .. } => add(&["--contain"]),
    }
    for (asked, words) in [
        (spec.unshare.pid, &["--pid"][..]),
        (spec.unshare.ipc, &["--ipc"]),
        (spec.unshare.uts || spec.hostname.is_some(), &["--uts"]),
        (spec.unshare.net, &["--net", "--network", "none"]),
    ] {
        if asked {
            add(words);
        }
    }
    if let Some(name) = &spec.hostname {
        arguments.extend(["--hostname".into(), name.clone()]);
    }
    match &spec.access {
        Access::ReadOnly => {}
        Access::Direct => arguments.push("--writable".into()),
        Access::CopyOnWrite { changes } => {
            if changes.as_os_str().as_bytes().iter().any(|byte| b":,".contains(byte)) {
                let why =
                    format!("apptainer takes no directory for changes with a colon or comma: {}", changes.display());
                return Err(Refusal::new(why).advise("choose another one"));
            }
            arguments.extend(["--overlay".into(), changes.clone().into_os_string()]);
            if identity.uid != 0 {
                // Files of a shared tree have no write bits.
                arguments.extend(["--userns", "--add-caps", "CAP_DAC_OVERRIDE"].map(OsString::from));
            }
        }
    }
    if let Devices::Minimal { extra } = &spec.devices {
        extra.iter().for_each(|device| arguments.extend(mount(device, device, false)));
    }
    for bind in spec.binds.iter().filter(|bind| is_there(bind)) {
        arguments.extend(mount(&bind.host, &bind.guest, bind.read_only));
    }
    arguments.push(spec.root.clone().into_os_string());
    Ok(arguments)
}

/// A bind that may be left out is, where the host lacks it; any other is the runtime's to complain of.
pub(crate) fn is_there(bind: &Bind) -> bool {
    !bind.optional || bind.host.exists()
}

/// One place of the host's.
fn mount(host: &Path, guest: &Path, read_only: bool) -> [OsString; 2] {
    let special = |path: &Path| path.as_os_str().as_bytes().iter().any(|byte| b":,\"\\\n".contains(byte));
    let mut text = OsString::new();
    if !special(host) && !special(guest) {
        for part in [host.as_os_str(), ":".as_ref(), guest.as_os_str()] {
            text.push(part);
        }
        text.push(if read_only { ":ro" } else { "" });
        return ["--bind".into(), text];
    }
    text.push("type=bind");
    for (name, path) in [("source", host), ("destination", guest)] {
        let quoted = path.to_string_lossy().replace('"', "\"\"");
        text.push(format!(",\"{name}={quoted}\""));
    }
    text.push(if read_only { ",ro" } else { "" });
    ["--mount".into(), text]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_hold_separators_are_quoted() {
        let words = |host: &str, guest: &str, read_only| mount(Path::new(host), Path::new(guest), read_only);
        assert_eq!(words("/a", "/b", true), ["--bind", "/a:/b:ro"]);
        assert_eq!(words("/a b", "/b", false), ["--bind", "/a b:/b"]);
        assert_eq!(words("/a,\"", "/b:c", true), ["--mount", r#"type=bind,"source=/a,""","destination=/b:c",ro"#]);
    }
}
