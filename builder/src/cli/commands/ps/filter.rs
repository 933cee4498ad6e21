//! `ps --filter KEY=VALUE`: of several for one key one has to fit, of labels all; and what is asked by several keys, too.

use std::mem::discriminant;

use anyhow::{Context as _, bail};

use super::{KILLED, Line, ports, word};
use crate::{
    cli::commands::{container, launching},
    source::Reference,
    store::{Store, containers::State},
};

/// What Docker has besides ours; no container is ever so here.
const OTHER_STATES: [&str; 3] = ["paused", "restarting", "removing"];

pub(super) enum Filter {
    Name(String),
    Id(String),
    Image(String),
    State(String),
    Exited(i32),
    Health(String),
    Label(String, Option<String>),
    /// When a container was made, and its id.
    Before((u64, String)),
    Since((u64, String)),
    Volume(String),
    Publish(String),
    Network(String),
}

/// Whether a line is asked for.
pub(super) fn all(filters: &[Filter], line: &Line) -> bool {
    filters.iter().all(|filter| match filter {
        Filter::Label(..) => filter.takes(line),
        _ => {
            let kind = discriminant(filter);
            filters.iter().filter(|other| discriminant(*other) == kind).any(|other| other.takes(line))
        }
    })
}

impl Filter {
    pub(super) fn parse(given: &str, store: &Store) -> anyhow::Result<Self> {
        let Some((key, value)) = given.split_once('=') else { bail!("--filter {given}: write KEY=VALUE") };
        let value = value.to_owned();
        let made = |value: &str| -> anyhow::Result<(u64, String)> {
            let container = store.containers().resolve(value)?;
            Ok((container.settings()?.created, container.id().to_owned()))
        };
        Ok(match key {
            "name" => Self::Name(value),
            "id" => Self::Id(value),
            "ancestor" => Self::Image(value),
            "status" if ["created", "running", "exited", "dead"].contains(&value.as_str()) => Self::State(value),
            "status" if OTHER_STATES.contains(&value.as_str()) => Self::State(value),
            "status" => bail!("--filter {given}: a container is created, running, exited or dead"),
            "exited" => Self::Exited(value.parse().with_context(|| format!("--filter {given}: write an exit status"))?),
            "health" if ["starting", "healthy", "unhealthy", "none"].contains(&value.as_str()) => Self::Health(value),
            "health" => bail!("--filter {given}: health is starting, healthy, unhealthy or none"),
            "label" => match value.split_once('=') {
                Some((key, value)) => Self::Label(key.to_owned(), Some(value.to_owned())),
                None => Self::Label(value, None),
            },
            "before" => Self::Before(made(&value)?),
            "since" => Self::Since(made(&value)?),
            "volume" => Self::Volume(value),
            "publish" | "expose" => Self::Publish(value),
            "network" => Self::Network(value),
            _ => bail!(
                "--filter {given}: there are name, id, ancestor, status, exited, health, label, before, since, volume, \
                 publish, expose and network"
            ),
        })
    }

    fn takes(&self, line: &Line) -> bool {
        let options = || launching::kept(&line.settings).unwrap_or_default();
        let made = || (line.settings.created, line.container.id().to_owned());
        match self {
            Self::Name(part) => line.names.iter().any(|name| name.contains(part)),
            Self::Id(start) => line.container.id().starts_with(start.as_str()),
            Self::Image(image) => {
                let same = |a: &str, b: &str| {
                    a.parse::<Reference>().ok().is_some_and(|a| b.parse().is_ok_and(|b: Reference| a == b))
                };
                line.settings.image == *image || same(&line.settings.image, image)
            }
            Self::State(wanted) => word(&line.state) == wanted,
            Self::Exited(status) => match &line.state {
                State::Exited(run) => run.status.unwrap_or(KILLED) == *status,
                _ => false,
            },
            Self::Health(wanted) => {
                let verdict = match &line.state {
                    State::Running(runs) => runs.iter().find_map(|run| run.health.as_ref()),
                    _ => None,
                };
                verdict.map_or("none", |verdict| verdict.status.as_str()) == wanted
            }
            Self::Label(key, value) => match (line.settings.config.labels.get(key), value) {
                (Some(is), Some(wanted)) => is == wanted,
                (is, _) => is.is_some(),
            },
            Self::Before(other) => made() < *other,
            Self::Since(other) => made() > *other,
            Self::Volume(wanted) => {
                container::mounts(&options()).iter().any(|mount| mount.source == *wanted || mount.guest == *wanted)
            }
            Self::Publish(wanted) => {
                let inside = |port: &str| port.rsplit("->").next().map(str::to_owned).unwrap_or_default();
                let wanted = if wanted.contains('/') { wanted.clone() } else { format!("{wanted}/tcp") };
                ports(&line.settings.config, &options()).split(", ").any(|port| inside(port) == wanted)
            }
            Self::Network(wanted) => wanted == if options().unshare.net { "none" } else { "host" },
        }
    }
}
