//! A run of the caller's own, on the host as it is, of which an engine keeps a record (`coracle capture`).
//!
//! Nothing is decided here: program, environment, directory and person are the caller's, and the tree is `/`.

use coracle_api::{Access, Identity, LaunchSpec, Order, Request};

use super::{Caller, Plan};

/// The run as the caller would have it without us.
pub(super) fn plan(order: &Order, caller: &Caller) -> Plan {
    let spec = LaunchSpec {
        access: Access::Direct,
        scratch: order.made.clone().unwrap_or_default(),
        argv: order.argv.clone(),
        env: caller.env.clone(),
        cwd: caller.cwd.clone().unwrap_or_else(|| "/".into()),
        host_path: caller.var("PATH").map(std::ffi::OsStr::to_owned),
        variant: order.engine.clone(),
        recording: order.recording.clone(),
        ..LaunchSpec::new(
            order.root.clone(),
            Identity { groups: caller.groups.clone(), ..Identity::launcher(caller.uid, caller.gid) },
        )
    };
    Plan { spec, request: Request::default(), own: None, near: None, notes: Vec::new() }
}
