//! A container as `coracle inspect` shows it: JSON in the shape that Docker gives it.

use coracle_api::Protocol;
use coracle_format::{Health, ImageConfig};
use serde_json::{Map, Value, json};

use super::{
    launching, own,
    ps::{KILLED, word},
};
use crate::{
    cli::{args::InspectArgs, print, source, table},
    launch::{Options, Source, order},
    source::open_store,
    store::{
        Store,
        containers::{Container, ContainerError, State, Verdict},
    },
};

/// The container that a word means, if there is one; a store is not made just to look.
pub(super) fn find(given: &str, quiet: bool) -> anyhow::Result<Option<(Store, Container)>> {
    let options = source::bare(quiet)?;
    if options.store.as_ref().is_none_or(|store| !store.join("version").exists()) {
        return Ok(None);
    }
    let store = open_store(&options)?;
    match store.containers().resolve(given) {
        Ok(container) => Ok(Some((store, container))),
        Err(ContainerError::NoSuch { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Shows a container.
pub(super) fn run(store: &Store, container: &Container, args: &InspectArgs, quiet: bool) -> anyhow::Result<()> {
    if args.path {
        // Even of a damaged one: that is when it is needed. Where there is no such place, one is made.
        if let Ok(settings) = container.settings()
            && container.stands_on(&settings).is_some()
        {
            own::make(container, None, true, quiet)?;
        }
        return print::line(&container.root().display().to_string());
    }
    let mut value = describe(store, container)?;
    if args.size {
        let settings = container.settings()?;
        let (own, all) = container.disk_use(&settings);
        value["SizeRw"] = json!(own);
        value["SizeRootFs"] = json!(all);
    }
    match &args.format {
        Some(format) => print::line(&table::from_json(format, &value)?),
        None => print::json(&json!([value])),
    }
}

/// A container in Docker's words.
fn describe(store: &Store, container: &Container) -> anyhow::Result<Value> {
    let settings = container.settings()?;
    let state = container.state()?;
    let names = store.containers().names()?.remove(container.id()).unwrap_or_default();
    let config = &settings.config;
    let options = launching::kept(&settings)?;
    let words: Vec<String> =
        order::command(config, &options).iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let runs = match &state {
        State::Created => &[][..],
        State::Running(runs) => runs,
        State::Exited(run) | State::Dead(run) => std::slice::from_ref(run),
    };
    let run = runs.first();
    let shown = configured(&settings.image, config, &options);
    let mounts = mounts(&options);
    Ok(json!({
        "Id": container.id(),
        "Created": table::rfc3339(settings.created),
        "Path": words.first(),
        "Args": words.get(1..).unwrap_or_default(),
        "State": {
            "Status": word(&state),
            "Running": matches!(state, State::Running(_)),
            "Paused": false,
            "Dead": matches!(state, State::Dead(_)),
            "Pid": run.filter(|run| run.is_alive()).map_or(0, |run| run.pid),
            "ExitCode": match &state {
                State::Exited(run) | State::Dead(run) => run.status.unwrap_or(KILLED),
                _ => 0,
            },
            "Health": run.and_then(|run| run.health.as_ref()).map(health),
            "StartedAt": run.map(|run| table::rfc3339(run.began)),
            "FinishedAt": run.and_then(|run| run.ended).map(table::rfc3339),
        },
        "Image": settings.provenance.config,
        "Name": names.first(),
        "Names": names,
        "Platform": config.os,
        "Architecture": config.architecture,
        "Root": Some(container.root()).filter(|root| root.is_dir()),
        "RestartCount": 0,
        "Driver": "coracle",
        "HostConfig": host_config(&options, &mounts),
        "Mounts": mounts.iter().map(|mount| json!({
            "Type": mount.kind,
            "Source": mount.source,
            "Destination": mount.guest,
            "Mode": if mount.read_only { "ro" } else { "" },
            "RW": !mount.read_only,
        })).collect::<Vec<_>>(),
        "NetworkSettings": {
            "IPAddress": "",
            "Ports": ports(&options),
            "Networks": { if options.unshare.net { "none" } else { "host" }: { "IPAddress": "" } },
        },
        "Layers": container.stands_on(&settings).map(|it| json!({ "Lower": it.lower, "Changes": it.changes })),
        "Engine": settings.engine.as_deref().unwrap_or("auto"),
        "Protected": settings.protected,
        "Sharing": container.sharing(&settings),
        "EditedFiles": container.edited().map_or(0, |files| files.len()),
        "Options": settings.options,
        "Provenance": settings.provenance,
        "Config": shown,
    }))
}

/// The config with what was asked for when the container was made.
fn configured(image: &str, config: &ImageConfig, options: &Options) -> Value {
    let nothing = ImageConfig::default();
    let config = if options.no_metadata { &nothing } else { config };
    let mut shown = in_dockers_words(config);
    shown["Image"] = json!(image);
    let text = |words: &[std::ffi::OsString]| -> Value {
        words.iter().map(|word| Value::from(word.to_string_lossy())).collect()
    };
    if let Some(entrypoint) = &options.entrypoint {
        shown["Entrypoint"] = if entrypoint.is_empty() { Value::Null } else { text(entrypoint) };
        shown["Cmd"] = Value::Null;
    }
    if !options.command.is_empty() {
        shown["Cmd"] = text(&options.command);
    }
    let mut env = config.env.clone();
    for (key, value) in &options.env {
        let start = format!("{}=", key.to_string_lossy());
        env.retain(|setting| !setting.starts_with(&start));
        env.extend(value.as_ref().map(|value| start + &value.to_string_lossy()));
    }
    shown["Env"] = json!(env);
    if let Some(user) = &options.user {
        shown["User"] = json!(user);
    }
    if let Some(directory) = &options.workdir {
        shown["WorkingDir"] = json!(directory);
    }
    shown["Hostname"] = json!(options.hostname.as_ref().map(|name| name.to_string_lossy()).unwrap_or_default());
    shown["Tty"] = json!(options.tty);
    shown["OpenStdin"] = json!(options.interactive);
    shown
}

/// A volume or a temporary directory in Docker's words.
pub(super) struct Mount {
    kind: &'static str,
    /// The host's path, or a volume's name.
    pub(super) source: String,
    pub(super) guest: String,
    read_only: bool,
}

/// What was asked to be shown inside.
pub(super) fn mounts(options: &Options) -> Vec<Mount> {
    let volumes = options.volumes.iter().map(|volume| {
        let (kind, source) = match &volume.source {
            Source::Host(path) => ("bind", path.display().to_string()),
            Source::Named(name) => ("volume", name.clone()),
            Source::Tree => ("volume", String::new()),
        };
        Mount { kind, source, guest: volume.guest.display().to_string(), read_only: volume.read_only }
    });
    let temporary = options.temporary.iter().map(|one| Mount {
        kind: "tmpfs",
        source: String::new(),
        guest: one.guest.display().to_string(),
        read_only: false,
    });
    volumes.chain(temporary).collect()
}

/// `{"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}`
fn ports(options: &Options) -> Value {
    let mut all = Map::new();
    for map in &options.ports {
        let protocol = if map.protocol == Protocol::Udp { "udp" } else { "tcp" };
        let address = map.address.map_or_else(|| "0.0.0.0".to_owned(), |address| address.to_string());
        let host = json!({ "HostIp": address, "HostPort": map.host.to_string() });
        let of_it = all.entry(format!("{}/{protocol}", map.guest)).or_insert_with(|| json!([]));
        if let Some(list) = of_it.as_array_mut() {
            list.push(host);
        }
    }
    all.into()
}

fn host_config(options: &Options, mounts: &[Mount]) -> Value {
    let private = |own: bool| if own { "private" } else { "host" };
    let binds = mounts
        .iter()
        .filter(|mount| !mount.source.is_empty())
        .map(|mount| format!("{}:{}{}", mount.source, mount.guest, if mount.read_only { ":ro" } else { "" }));
    json!({
        "Binds": binds.collect::<Vec<_>>(),
        "NetworkMode": if options.unshare.net { "none" } else { "host" },
        "PidMode": private(options.unshare.pid),
        "IpcMode": private(options.unshare.ipc),
        "PortBindings": ports(options),
        "AutoRemove": options.remove,
        "ReadonlyRootfs": options.read_only,
        "Privileged": false,
        "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 },
        "CpusetCpus": options.cpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        "ExtraHosts": options.hosts,
    })
}

/// A config as Docker writes it, in images and when it shows containers.
pub(super) fn in_dockers_words(config: &ImageConfig) -> Value {
    let set = |list: &[String]| list.iter().map(|key| (key.clone(), json!({}))).collect::<serde_json::Map<_, _>>();
    json!({
        "Env": config.env,
        "Cmd": config.cmd,
        "Entrypoint": config.entrypoint,
        "WorkingDir": config.working_dir.as_deref().unwrap_or(""),
        "User": config.user.as_deref().unwrap_or(""),
        "Volumes": set(&config.volumes),
        "ExposedPorts": set(&config.exposed_ports),
        "Labels": config.labels,
        "StopSignal": config.stop_signal,
        "Healthcheck": config.health.as_ref().map(healthcheck),
    })
}

/// An image's check in Docker's words.
fn healthcheck(health: &Health) -> Value {
    json!({
        "Test": health.test,
        "Interval": health.interval,
        "Timeout": health.timeout,
        "StartPeriod": health.start_period,
        "StartInterval": health.start_interval,
        "Retries": health.retries,
    })
}

fn health(verdict: &Verdict) -> Value {
    let log = verdict.log.iter().map(|check| {
        json!({
            "Start": table::rfc3339(check.began),
            "End": table::rfc3339(check.ended),
            "ExitCode": check.status,
            "Output": check.output,
        })
    });
    json!({ "Status": verdict.status, "FailingStreak": verdict.failing, "Log": log.collect::<Vec<_>>() })
}
