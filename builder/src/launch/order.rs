//! A container's settings and options as an order for the stub.

use std::{ffi::OsString, path::PathBuf};

use coracle_api::{Access, Bind, BindOrigin, ImageFacts, Order, OwnTree};
use coracle_format::ImageConfig;

use super::{
    LaunchError, Options, Source, Volume, ids,
    volumes::{self, Begin},
};
use crate::store::{
    Store,
    containers::{Container, Settings, Sharing, base::Layers},
};

/// Places of drivers for direct rendering, on hosts of every kind.
pub const RENDERING: [&str; 6] =
    ["/usr/lib/dri", "/usr/lib64/dri", "/usr/lib/x86_64-linux-gnu/dri", "/lib/dri", "/lib64/dri", "/usr/share/drirc.d"];

/// The order for a run in a container. Named volumes are made if this is their first use.
///
/// # Errors
/// [`LaunchError::Volume`], [`LaunchError::Own`].
pub fn of_container(
    store: &Store,
    container: &Container,
    settings: &Settings,
    options: &Options,
) -> Result<Order, LaunchError> {
    let nothing = ImageConfig::default();
    let config = if options.no_metadata { &nothing } else { &settings.config };
    let mut layers = container.stands_on(settings);
    // To be read only, changes would have to be laid over the image's tree by somebody; and volumes need a place.
    let bare = container.sharing(settings) == Sharing::Image && config.volumes.is_empty();
    let has_place = |volume: &Volume| matches!(volume.source, Source::Tree);
    if layers.is_some() && (options.read_only && !bare || options.volumes.iter().any(has_place)) {
        ids::own(container, None, true)?;
        layers = None;
    }
    let begin = Begin::of(container, settings);
    let mut order = of_tree_with(store, container.root(), &begin, config, options)?;
    order.ledger = Some(container.ledger());
    order.made = Some(container.directory().join("made"));
    order.engine = options.engine.clone().or_else(|| settings.engine.clone()).map(engine);
    if let Some(Layers { lower, changes, .. }) = layers {
        order.truths = Some(lower.with_file_name("truths"));
        order.root = lower;
        if !options.read_only {
            order.access = Access::CopyOnWrite { changes };
            order.own = Some(OwnTree { command: Vec::new(), root: container.own_root() });
        }
        return Ok(order);
    }
    if options.read_only {
        // What the image calls a volume is for writing even then; it keeps its place in the container's own tree.
        for volume in config.volumes.iter().map(PathBuf::from).filter(|volume| volume.is_absolute()) {
            if !order.binds.iter().any(|bind| bind.guest == volume) {
                let host = volumes::inside(&container.root(), &volume)?;
                order.binds.push(bind(host, volume, false, false));
            }
        }
    }
    Ok(order)
}

/// The order for a run in a bare directory.
///
/// # Errors
/// [`LaunchError::Volume`].
pub fn of_tree(store: &Store, root: PathBuf, config: &ImageConfig, options: &Options) -> Result<Order, LaunchError> {
    let begin = Begin::Tree(root.clone());
    of_tree_with(store, root, &begin, config, options)
}

fn of_tree_with(
    store: &Store,
    root: PathBuf,
    begin: &Begin<'_>,
    config: &ImageConfig,
    options: &Options,
) -> Result<Order, LaunchError> {
    let access = if options.read_only { Access::ReadOnly } else { Access::Direct };
    let mut binds = Vec::new();
    for volume in &options.volumes {
        let host = match &volume.source {
            Source::Host(path) => path.clone(),
            Source::Named(name) => volumes::named(store, name, begin, &volume.guest)?,
            Source::Tree => volumes::inside(&root, &volume.guest)?,
        };
        if let Err(cause) = std::fs::metadata(&host) {
            if volume.optional {
                continue;
            }
            return Err(LaunchError::Volume { path: host, cause });
        }
        binds.push(bind(host, volume.guest.clone(), volume.read_only, volume.optional));
    }
    Ok(Order {
        access,
        argv: command(config, options),
        image_env: config.env.clone(),
        env: options.env.clone(),
        host_env: options.host_env,
        user: options.user.clone().or_else(|| config.user.clone().filter(|user| !user.is_empty())),
        accounts: options.accounts,
        workdir: options
            .workdir
            .clone()
            .or_else(|| config.working_dir.as_deref().map(PathBuf::from).filter(|directory| directory.is_absolute())),
        binds,
        temporary: options.temporary.clone(),
        home: options.home,
        names: !options.no_names,
        omit: options.omit.clone(),
        gpus: options.gpus.clone().or_else(|| options.nvidia.then(|| "all".to_owned())),
        device_names: options.devices.clone(),
        unshare: options.unshare,
        hostname: options.hostname.clone(),
        kernel: options.kernel.clone(),
        hosts: options.hosts.clone(),
        resolv_conf: options.resolv_conf.clone(),
        ports: options.ports.clone(),
        engine: options.engine.clone(),
        facts: ImageFacts { architecture: config.architecture.clone(), ..ImageFacts::default() },
        ..Order::new(root)
    })
}

fn bind(host: PathBuf, guest: PathBuf, read_only: bool, optional: bool) -> Bind {
    Bind { host, guest, read_only, optional, origin: BindOrigin::Volume }
}

/// Udocker's modes that are variants of one engine, under the name that the engine itself knows.
fn engine(name: String) -> String {
    match name.to_ascii_uppercase().as_str() {
        "R2" | "R3" | "USERNS" => "R1".to_owned(),
        "SINGULARITY" => "S1".to_owned(),
        _ => name,
    }
}

/// Docker's rule: arguments replace Cmd and follow the entrypoint; an entrypoint of the user's drops Cmd.
#[must_use]
pub fn command(config: &ImageConfig, options: &Options) -> Vec<OsString> {
    let image = |list: &Option<Vec<String>>| list.iter().flatten().map(OsString::from).collect::<Vec<_>>();
    let (mut argv, cmd) = match &options.entrypoint {
        Some(entrypoint) => (entrypoint.clone(), Vec::new()),
        None => (image(&config.entrypoint), image(&config.cmd)),
    };
    argv.extend(if options.command.is_empty() { cmd } else { options.command.clone() });
    argv
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_replace_cmd_and_an_entrypoint_drops_it() {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let config = ImageConfig { entrypoint: Some(list(&["e"])), cmd: Some(list(&["c"])), ..ImageConfig::default() };
        let argv = |options: &Options| {
            command(&config, options).iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(argv(&Options::default()), ["e", "c"]);
        let given = Options { command: vec!["".into(), "-x".into()], ..Options::default() };
        assert_eq!(argv(&given), ["e", "", "-x"]);
        assert_eq!(argv(&Options { entrypoint: Some(vec!["n".into()]), ..Options::default() }), ["n"]);
        assert_eq!(argv(&Options { entrypoint: Some(Vec::new()), ..given }), ["", "-x"]);
    }
}
