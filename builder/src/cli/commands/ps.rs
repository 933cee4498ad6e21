//! `coracle ps`: the containers there are.

mod filter;

use coracle_api::PortMap;
use coracle_format::ImageConfig;

use self::filter::Filter;
use super::{container, launching};
use crate::{
    cli::{
        args::PsArgs,
        report, source,
        table::{Listing, ago, date, size},
    },
    launch::{Options, order},
    source::open_store,
    store::containers::{Container, RunRecord, Settings, Sharing, State},
};

/// The status of a run that nobody could put on record: what stayed beside it was killed, and it with that.
pub(super) const KILLED: i32 = 128 + libc::SIGKILL;

const FIELDS: [(&str, &str); 16] = [
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("State", "STATE"),
    ("Protected", "P"),
    ("Mode", "MODE"),
    ("Platform", "PLATFORM"),
    ("Size", "SIZE"),
    ("Ports", "PORTS"),
    ("CreatedAt", "CREATED AT"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("Networks", "NETWORKS"),
    ("Names", "NAMES"),
];

/// Lists containers. Damaged ones are told of on standard error, and do not hide the others.
pub(super) fn run(args: &PsArgs, quiet: bool) -> anyhow::Result<()> {
    let store = open_store(&source::bare(quiet)?)?;
    let filters = args.filter.iter().map(|given| Filter::parse(given, &store)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut shown = vec!["ID", "Image", "Command", "RunningFor", "Status", "Protected"];
    shown.extend(args.mode.then_some("Mode"));
    shown.extend(args.platform.then_some("Platform"));
    shown.extend(args.size.then_some("Size"));
    shown.push("Names");
    let mut listing = Listing::new(&FIELDS, &shown);
    let mut names = store.containers().names()?;
    let wants_size = args.size || args.list.format.as_deref().is_some_and(|format| format.contains(".Size"));
    let mut lines = Vec::new();
    for container in store.containers().list()? {
        let (settings, state) = match container.settings().and_then(|settings| Ok((settings, container.state()?))) {
            Ok(known) => known,
            // Removed meanwhile.
            Err(_) if !container.directory().exists() => continue,
            Err(error) => {
                report::note(false, &report::line(&error.into()).replacen("coracle: ", "", 1));
                continue;
            }
        };
        let names = names.remove(container.id()).unwrap_or_default();
        let line = Line { container, settings, state, names };
        if (!args.running || matches!(line.state, State::Running(_) | State::Dead(_))) && filter::all(&filters, &line) {
            lines.push(line);
        }
    }
    // The newest first, as Docker has it.
    lines.sort_by(|a, b| (b.settings.created, b.container.id()).cmp(&(a.settings.created, a.container.id())));
    lines.truncate(if args.latest { 1 } else { args.last.unwrap_or(usize::MAX) });
    for line in lines {
        let bytes = if wants_size { line.size() } else { String::new() };
        listing.row(line.values(args.list.no_trunc, bytes));
    }
    listing.print(&args.list, quiet)
}

struct Line {
    container: Container,
    settings: Settings,
    state: State,
    names: Vec<String>,
}

impl Line {
    fn values(&self, whole: bool, size: String) -> Vec<String> {
        let Self { container, settings, state, names } = self;
        let config = &settings.config;
        let now = crate::store::now();
        let words = match state {
            State::Running(runs) => runs.first().map(|run| run.command.clone()),
            State::Exited(run) | State::Dead(run) => Some(run.command.clone()),
            State::Created => None,
        };
        let options = launching::kept(settings).unwrap_or_default();
        let words = words.unwrap_or_else(|| {
            let words = order::command(config, &options);
            words.iter().map(|word| word.to_string_lossy().into_owned()).collect()
        });
        let command = cut(&words.join(" "), whole, 20);
        vec![
            if whole { container.id() } else { container.short_id() }.to_owned(),
            settings.image.clone(),
            format!("\"{command}\""),
            ago(settings.created, now),
            status(state, now),
            word(state).to_owned(),
            if settings.protected { "P" } else { "" }.to_owned(),
            settings.engine.clone().unwrap_or_else(|| "auto".to_owned()),
            [config.os.as_str(), &config.architecture].join("/")
                + &config.variant.as_ref().map(|v| format!("/{v}")).unwrap_or_default(),
            size,
            ports(config, &options),
            date(settings.created),
            config.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(","),
            container::mounts(&options).iter().map(|mount| mount.source.clone()).collect::<Vec<_>>().join(","),
            if options.unshare.net { "none" } else { "host" }.to_owned(),
            names.join(","),
        ]
    }

    /// What the tree takes by itself, and what it would take without what it shares.
    fn size(&self) -> String {
        let (own, all) = self.container.disk_use(&self.settings);
        let sharing = self.container.sharing(&self.settings);
        size(own) + &if sharing != Sharing::Copy { format!(" (virtual {})", size(all)) } else { String::new() }
    }
}

/// Ports that are published, then those that the image exposes besides.
fn ports(config: &ImageConfig, options: &Options) -> String {
    let published = options.ports.iter().map(ToString::to_string);
    let inside = |port: &PortMap| port.to_string().rsplit("->").next().unwrap_or_default().to_owned();
    let known: Vec<String> = options.ports.iter().map(inside).collect();
    let full = |port: &String| if port.contains('/') { port.clone() } else { format!("{port}/tcp") };
    let exposed = config.exposed_ports.iter().map(full).filter(|port| !known.contains(port));
    published.chain(exposed).collect::<Vec<_>>().join(", ")
}

/// The word that Docker has for a state.
pub(super) fn word(state: &State) -> &'static str {
    match state {
        State::Created => "created",
        State::Running(_) => "running",
        State::Exited(_) => "exited",
        State::Dead(_) => "dead",
    }
}

fn status(state: &State, now: u64) -> String {
    match state {
        State::Created => "Created".to_owned(),
        State::Running(runs) => match runs.first() {
            Some(run) => format!("Up {}{}", ago(run.began, now).trim_end_matches(" ago"), health(run)),
            None => "Up (on another node)".to_owned(),
        },
        State::Exited(RunRecord { status, ended, began, .. }) => {
            let when = ago(ended.unwrap_or(*began), now);
            format!("Exited ({}) {when}", status.unwrap_or(KILLED))
        }
        State::Dead(run) => format!("Dead (processes are left) {}", ago(run.began, now)),
    }
}

/// What is known of a run's health, in Docker's words.
fn health(run: &RunRecord) -> String {
    match run.health.as_ref().map(|verdict| verdict.status.as_str()) {
        None => String::new(),
        Some("starting") => " (health: starting)".to_owned(),
        Some(word) => format!(" ({word})"),
    }
}

fn cut(text: &str, whole: bool, most: usize) -> String {
    if whole || text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}
