//! A container as `coracle inspect` shows it: JSON in the shape that Docker gives it.

use coracle_format::{Health, ImageConfig};
use serde_json::{Value, json};

use super::{
    own,
    ps::{KILLED, word},
};
use crate::{
    cli::{args::InspectArgs, print, source, table},
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
    let value = describe(store, container)?;
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
    let words: Vec<&String> = config.entrypoint.iter().chain(&config.cmd).flatten().collect();
    let runs = match &state {
        State::Created => &[][..],
        State::Running(runs) => runs,
        State::Exited(run) | State::Dead(run) => std::slice::from_ref(run),
    };
    let run = runs.first();
    let mut shown = in_dockers_words(config);
    shown["Image"] = json!(settings.image);
    Ok(json!({
        "Id": container.id(),
        "Created": table::rfc3339(settings.created),
        "Path": words.first(),
        "Args": words.get(1..).unwrap_or_default(),
        "State": {
            "Status": word(&state),
            "Running": matches!(state, State::Running(_)),
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
