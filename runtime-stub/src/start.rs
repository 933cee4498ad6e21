//! One start of the stub, from its arguments to an exit status: read the layers of options, then do what they ask.

use std::{ffi::OsString, io::IsTerminal as _, path::Path, time::Instant};

use coracle_api::{Access, Ended, Engine, Host, ImageFacts, LaunchSpec, RunError, signals};
use coracle_format::{Defaults, Manifest};

use crate::{
    actions::{self, ActionError},
    cache::{self, CacheError, CacheOptions, Cached, ViewError},
    config::{self, Config},
    export::{self, Form},
    handover, inside,
    launch::{
        self, Caller, Inputs, LaunchError, Memory, Plan,
        engines::{self, Candidate},
    },
    open::{Bundle, OpenError},
    options::{self, Action, Cache, Given, OptionError, Options, Origin, Writable, table::Row},
    order,
    record::{End, Keeper},
    report::{self, Voice, say, without_numbers},
    slot,
    supervise::{self, Duties, Later, Over, Usage},
    unpack::UnpackError,
};

/// Coracle's own failures.
pub(crate) const FAILED: u8 = 125;

/// A start that failed before the application ran.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An option.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// The bundle.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The view with an engine's edits.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The plan.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// Facts that this version cannot read.
    #[error("{path}: its facts about the image cannot be read: {source}: build it again with this version")]
    Facts {
        /// The bundle.
        path: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The child that runs the application.
    #[error("cannot start a process for the application: {0}: raise the limit on processes")]
    Fork(std::io::Error),
    /// Something else than running.
    #[error(transparent)]
    Done(#[from] ActionError),
    /// An action that failed, in words.
    #[error("{0}")]
    Action(String),
}

/// Runs this process to its end and returns the exit status; a guest that replaces the process never returns.
#[must_use]
pub fn start(argv: Vec<OsString>) -> u8 {
    coracle_api::mask::spare_owner();
    let caller = Caller::read(argv);
    if let Some(code) = inside::start(&caller).or_else(|| handover::start(&caller)) {
        return code;
    }
    if slot::read().is_ok_and(|slot| slot.payload == 0)
        && let Some(code) = order::start(&caller)
    {
        return code;
    }
    match run(&caller) {
        Ok(code) => code,
        // Tidied up, the process ends as if the signal had not waited for that.
        Err(
            StartError::Cache(CacheError::Unpack(UnpackError::Signal(signal)))
            | StartError::Done(ActionError::Unpack(UnpackError::Signal(signal))),
        ) => signals::die_as(Ended::Signaled(signal)),
        Err(error) => {
            say(&error.to_string());
            FAILED
        }
    }
}

fn run(caller: &Caller) -> Result<u8, StartError> {
    let began = Instant::now();
    let (mut command_line, args) = options::command_line(&caller.args)?;
    let environment = options::environment(&caller.env)?;
    let config = Config::read(&caller.env)?;
    // Help and version are to be had of a damaged file too.
    let early = Options::join(command_line.clone())?;
    match early.action {
        Action::Help => return print(&report::help(&caller.argv0.to_string_lossy())),
        Action::Version => return print(&report::version()),
        _ => {}
    }
    let bundle = Bundle::open_self(slot::read())?;
    let mut warnings = config.warnings;
    let mut given = defaults(&bundle.manifest().defaults, &caller.env, &mut warnings);
    given.extend(config.given);
    given.extend(environment);
    given.append(&mut command_line);
    let options = Options::join(given)?;
    let voice = Voice { verbose: options.verbose, quiet: options.quiet };
    for warning in &warnings {
        voice.warn(warning);
    }
    let signed = options.key.as_ref().map(|key| actions::verify_signature(&bundle, key)).transpose()?;
    let start = Start { caller, options: &options, bundle: &bundle, args, voice, began };
    match &options.action {
        Action::Run => start.launch(),
        Action::Help => print(&report::help(&caller.argv0.to_string_lossy())),
        Action::Version => print(&report::version()),
        // An action leaves the words after it unused; this one is what people type who know other tools.
        Action::Info { json } if *json || start.args == ["--json"] => print(&report::info_json(&bundle)),
        Action::Info { .. } => print(&report::info(&bundle)),
        Action::Offset => print(&format!("{}\n", bundle.payload_offset())),
        Action::Explain => start.explain(),
        Action::Verify => {
            let signed = signed.map(|comment| format!("{}: signed: {comment}\n", bundle.path().display()));
            print(&format!("{}\n{}", actions::verify(&bundle)?, signed.unwrap_or_default()))
        }
        Action::Extract(dir) => start.extract(dir.as_deref()),
        Action::Export(form) => start.export(*form),
        Action::Tar(file) => start.with_tree(|tree| actions::tar(&bundle, tree, file.as_deref())),
        Action::Cleanup => {
            let lines = actions::cleanup(&launch::places(&options, caller), options.cache_limit);
            print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())
        }
    }
}

/// What the builder fixed, as the lowest layer. Its volumes may name variables of the node: `/scratch/$USER`.
fn defaults(defaults: &Defaults, env: &[(OsString, OsString)], warnings: &mut Vec<String>) -> Vec<Given> {
    let mut given = Vec::new();
    let mut add = |name: &str, value: OsString| {
        let row = Row::named(name.as_bytes());
        given.extend(row.map(|row| Given { row, value: Some(value), origin: Origin::Bundle }));
    };
    if defaults.isolated {
        add("isolated", "yes".into());
    }
    if defaults.alone {
        add("alone", "yes".into());
    }
    if defaults.writable {
        add("writable", "yes".into());
    }
    if let Some(engine) = &defaults.engine {
        add("engine", engine.into());
    }
    for volume in &defaults.volumes {
        match config::expand(volume, env) {
            Ok(volume) => add("volume", volume),
            Err(name) => warnings.push(format!("volume {volume} of the bundle: ${name} is not set: not shown")),
        }
    }
    given
}

fn print(text: &str) -> Result<u8, StartError> {
    use std::io::Write;
    std::io::stdout()
        .write_all(text.as_bytes())
        .map(|()| 0)
        .map_err(|error| StartError::Action(format!("standard output: {error}: nothing was printed")))
}

struct Start<'a> {
    caller: &'a Caller,
    options: &'a Options,
    bundle: &'a Bundle,
    args: &'a [OsString],
    voice: Voice,
    began: Instant,
}

impl Start<'_> {
    fn extract(&self, dir: Option<&Path>) -> Result<u8, StartError> {
        let (dir, stats) = actions::extract(self.bundle, dir)?;
        if stats.set_ids > 0 {
            self.voice.warn(&format!("{}: {} files lost their set-id bits", dir.display(), stats.set_ids));
        }
        self.voice.note(&format!("{} files, {} bytes to {}", stats.inodes, stats.bytes, dir.display()));
        Ok(0)
    }

    fn cache(&self) -> CacheOptions {
        CacheOptions {
            settings: launch::places(self.options, self.caller),
            private: matches!(self.options.cache, Some((Cache::None, _))),
            limit: self.options.cache_limit,
            ..CacheOptions::default()
        }
    }

    fn tell(&self, event: &cache::Event) {
        if event.is_notable() { self.voice.warn(&event.to_string()) } else { self.voice.note(&event.to_string()) }
    }

    fn export(&self, form: Form) -> Result<u8, StartError> {
        if std::io::stdout().is_terminal() {
            return Err(StartError::Action(
                "standard output is a terminal: nothing was written: send it to a file or a pipe".to_owned(),
            ));
        }
        let settings = launch::places(self.options, self.caller);
        self.with_tree(|tree| export::export(self.bundle, tree, form, &settings))
    }

    /// Does something with the tree: the bundle's, or with the changes that a run has kept.
    fn with_tree(&self, work: impl Fn(&export::Tree) -> Result<(), ActionError>) -> Result<u8, StartError> {
        let changes = match &self.options.writable {
            Writable::Kept(dir) => Some(self.caller.absolute(dir)),
            _ => None,
        };
        Ok(export::with_tree(self.bundle, changes.as_deref(), &launch::root_of(self.caller), self.voice, work)?)
    }

    fn acquire(&self) -> Result<Cached, StartError> {
        Ok(cache::acquire(self.bundle, &self.cache(), &mut |event| self.tell(&event))?)
    }

    /// Has the run see a view of the tree with the engine's edits, if the engine wants them. The view's lease comes
    /// with what is returned.
    fn edit(&self, plan: &mut Plan, engine: &dyn Engine, cached: &Cached) -> Result<Option<Cached>, StartError> {
        let asked = self.asked_engine();
        if !engine.wants_edits(asked) {
            return Ok(None);
        }
        if plan.spec.access != Access::ReadOnly {
            // Edits hold the path of a loader that the guest may replace.
            self.voice
                .note("a run that may change its tree has no edited programs: they are started by their loader (F1)");
            return Ok(None);
        }
        match cache::view(self.bundle, &self.cache(), cached, engine.name(), &mut |event| self.tell(&event)) {
            Ok(view) => {
                self.voice.note(&format!("view: {}", view.root.display()));
                let spec = &mut plan.spec;
                spec.root.clone_from(&view.root);
                spec.pristine = Some(cached.root.clone());
                (spec.names, spec.truths) = (Some(view.names.clone()), Some(view.truths.clone()));
                Ok(Some(view))
            }
            Err(ViewError::Cache(error)) => Err(error.into()),
            // Whoever names the way gets that one or none.
            Err(why) if asked.is_some_and(|asked| asked != engine.name()) => Err(why.into()),
            Err(why) => {
                self.voice.note(&format!("{why}; programs are started by their loader instead, which takes longer"));
                Ok(None)
            }
        }
    }

    fn plan(&self, cached: &Cached, shared: Option<&Path>) -> Result<Plan, StartError> {
        let facts = self.facts()?;
        Ok(launch::plan(&Inputs {
            manifest: self.bundle.manifest(),
            options: self.options,
            caller: self.caller,
            args: self.args,
            bundle: self.bundle.path(),
            root: &cached.root,
            names: Some(&cached.names),
            truths: Some(&cached.truths),
            loaders: &facts.loaders,
            shared,
            places: &launch::places(self.options, self.caller),
        })?)
    }

    fn host(&self) -> Host {
        Host::read(self.caller.var("PATH").map(ToOwned::to_owned))
    }

    fn facts(&self) -> Result<ImageFacts, StartError> {
        let Manifest { facts, .. } = self.bundle.manifest();
        if facts.is_null() {
            return Ok(ImageFacts::default());
        }
        serde_json::from_value(facts.clone())
            .map_err(|source| StartError::Facts { path: self.bundle.path().display().to_string(), source })
    }

    fn asked_engine(&self) -> Option<&str> {
        self.options.engine.as_ref().map(|(name, _)| name.as_str()).filter(|name| !name.eq_ignore_ascii_case("auto"))
    }

    fn launch(&self) -> Result<u8, StartError> {
        let Some(to) = &self.options.report else {
            return self.run(None).map(|over| signals::die_as(over.ended));
        };
        let told = |why: String| self.voice.warn(&unwritten(&why));
        // No job is lost for want of a record.
        let keeper = Keeper::begin(to, self.bundle, self.caller, self.began).map_err(told);
        let mut keeper = keeper.ok();
        let answer = self.run(keeper.as_mut());
        let end = match &answer {
            Ok(over) => End::Over(*over),
            Err(StartError::Cache(CacheError::Unpack(UnpackError::Signal(signal)))) => {
                End::Failed(Ended::Signaled(*signal), None)
            }
            Err(error) => End::Failed(Ended::Exited(FAILED), Some(without_numbers(&error.to_string()))),
        };
        if let Some(Err(why)) = keeper.map(|mut keeper| keeper.end(end)) {
            told(why);
        }
        answer.map(|over| signals::die_as(over.ended))
    }

    /// Returns where the application did not replace this process.
    fn run(&self, mut keeper: Option<&mut Keeper>) -> Result<Over, StartError> {
        let facts = self.facts()?;
        // There will be something to remove or to write.
        let stays = self.makes_own() || keeper.is_some();
        let later = if stays { Some(Later::hold().map_err(StartError::Fork)?) } else { None };
        let cached = self.acquire()?;
        let later = match later {
            None if cached.private => Some(Later::hold().map_err(StartError::Fork)?),
            later => later,
        };
        self.voice.note(&format!("tree: {}", cached.root.display()));
        if let Some(keeper) = keeper.as_deref_mut() {
            keeper.tree(&cached, self.caller);
        }
        let planned = launch::shared(&cached.dir)
            .map_err(StartError::from)
            .and_then(|shared| Ok((self.plan(&cached, Some(&shared))?, shared)));
        let (mut plan, shared) = match planned {
            Ok(planned) => planned,
            Err(error) => {
                self.remove(cached);
                return Err(error);
            }
        };
        for (topic, text) in &plan.notes {
            if *topic == launch::ABSENT { self.voice.warn(text) } else { self.voice.note(&format!("{topic}: {text}")) }
        }
        let alone = plan.own.is_none() && !cached.private && keeper.is_none();
        // Whoever wants to be told of refusals gets them asked for.
        let memory = if alone && !self.voice.verbose && self.asked_engine().is_none() {
            let memory = Memory::read(&shared, self.bundle.path(), &plan.request);
            if let Some(over) = self.as_before(&memory, &mut plan, &cached) {
                return Ok(over);
            }
            Some(memory)
        } else {
            None
        };
        let (engine, refused) = match self.choose(&facts, &plan) {
            Ok(chosen) => chosen,
            Err(error) => {
                self.clean(plan, cached);
                return Err(error.into());
            }
        };
        if let Some(keeper) = keeper.as_deref_mut() {
            keeper.program(plan.spec.argv.first());
            keeper.engine(engine.name(), &refused);
        }
        let _view = match self.edit(&mut plan, engine, &cached) {
            Ok(view) => view,
            Err(error) => {
                self.clean(plan, cached);
                return Err(error);
            }
        };
        name_engine(&mut plan.spec, engine);
        plan.bring_near(engine, &launch::places(self.options, self.caller));
        if alone {
            if let Some(memory) = memory {
                memory.write(engine.name());
            }
            return Ok(alone_over(engine.run(&plan.spec)));
        }
        let duties = Duties {
            meanwhile: || {},
            clean: |(plan, cached)| self.clean(plan, cached),
            orphaned: |over| {
                if let Some(Err(why)) = keeper.map(|keeper| keeper.end(End::Over(over))) {
                    self.voice.warn(&unwritten(&why));
                }
            },
        };
        let guest = |(plan, _): &(Plan, Cached)| outcome(engine.run(&plan.spec));
        supervise::beside(later, (plan, cached), guest, duties).map_err(StartError::Fork)
    }

    /// Whether the run makes files that go with it.
    fn makes_own(&self) -> bool {
        let private = matches!(self.options.cache, Some((Cache::None, _)));
        private || self.options.isolated || self.options.alone || self.options.writable == Writable::Temporary
    }

    /// Becomes the application by the engine that accepted the same kind of run before. Returns an exit status, or nothing
    /// if the engines have to be asked again.
    fn as_before(&self, memory: &Memory, plan: &mut Plan, cached: &Cached) -> Option<Over> {
        let engine = engines::find(&engines::ENGINES, memory.engine.as_deref()?)?;
        let _view = self.edit(plan, engine, cached).ok()?;
        name_engine(&mut plan.spec, engine);
        match engine.run(&plan.spec) {
            Err(RunError::Step { .. } | RunError::Refused(_)) if memory.is_here(self.bundle.path(), &plan.request) => {
                None
            }
            answer => Some(alone_over(answer)),
        }
    }

    fn choose(&self, facts: &ImageFacts, plan: &Plan) -> Result<(&'static dyn Engine, Vec<Candidate>), LaunchError> {
        let host = self.host();
        let (engine, refused) = engines::choose(&engines::ENGINES, self.asked_engine(), &host, facts, &plan.request)?;
        for one in &refused {
            if let Err(refusal) = &one.answer {
                self.voice.note(&format!("engine {}: {refusal}", one.engine.name()));
            }
        }
        self.voice.note(&format!("engine: {}", engine.name()));
        for note in engine.notes(&host, &plan.request) {
            self.voice.warn(&format!("engine {}: {note}", engine.name()));
        }
        Ok((engine, refused))
    }

    fn clean(&self, plan: Plan, cached: Cached) {
        for own in [plan.own, plan.near].into_iter().flatten() {
            if let Err(error) = own.remove(&plan.spec.identity) {
                self.voice.warn(&error.to_string());
            }
        }
        self.remove(cached);
    }

    fn remove(&self, cached: Cached) {
        let dir = cached.dir.clone();
        if let Err(error) = cached.remove() {
            self.voice.warn(&format!("{}: cannot be removed: {error}: remove it by hand", dir.display()));
        }
    }

    /// Where the tree is, and what became of every place that it could have been in.
    fn places(&self, cached: &Cached) -> Vec<String> {
        let how = if cached.hit { "found" } else { "unpacked now" };
        let mut lines = vec![format!("tree: {} ({how})", cached.root.display())];
        let settings = launch::places(self.options, self.caller);
        let own = format!("coracle-{}", self.caller.uid);
        let places = if cached.private { settings.scratch_places() } else { settings.cache_places() };
        for place in places {
            let skipped = cached.skipped.iter().find(|skipped| skipped.place.path == place.path);
            let fate = match skipped {
                Some(skipped) => skipped.reason.as_str(),
                None if cached.root.starts_with(place.path.canonicalize().unwrap_or_default().join(&own)) => "used",
                None => "not needed",
            };
            lines.push(format!("{place}: {fate}"));
        }
        lines
    }

    fn explain(&self) -> Result<u8, StartError> {
        let cached = self.acquire()?;
        let plan = self.plan(&cached, None)?;
        let (host, facts) = (self.host(), self.facts()?);
        let mut candidates = engines::ask_all(&engines::ENGINES, &host, &facts, &plan.request);
        for one in candidates.iter_mut().filter(|one| one.answer.is_ok()) {
            let own = |name: &&str| engines::find(&[one.engine], name).is_some();
            one.notes.extend(report::entering(one.engine, self.asked_engine().filter(own), &plan, &facts));
        }
        let chosen = engines::choose(&engines::ENGINES, self.asked_engine(), &host, &facts, &plan.request);
        let places = self.places(&cached);
        let name = chosen.as_ref().ok().map(|(engine, _)| engine.name());
        print(&report::explain(self.options, &plan, &facts, &candidates, name, &places))?;
        self.remove(cached);
        chosen?;
        Ok(0)
    }
}

/// Tells the application by which engine it runs, and the engine who runs what it cannot.
pub(crate) fn name_engine(spec: &mut LaunchSpec, engine: &dyn Engine) {
    const KEY: &str = "CORACLE_BUNDLE_ENGINE";
    spec.env.retain(|(key, _)| key != KEY);
    spec.env.push((KEY.into(), engine.name().into()));
    handover::prepare(spec, engine);
}

fn unwritten(why: &str) -> String {
    format!("the record of this run cannot be written: {why}")
}

/// The same, for an engine that has no process of ours beside it: nothing is known of what was used.
fn alone_over(answer: Result<Ended, RunError>) -> Over {
    let ended = answer.unwrap_or_else(|error| {
        say(&error.to_string());
        Ended::Exited(error.exit_code())
    });
    Over { ended, usage: Usage::default() }
}

/// The exit status after an engine returned.
pub(crate) fn outcome(answer: Result<Ended, RunError>) -> u8 {
    match answer {
        Ok(ended) => signals::die_as(ended),
        Err(error) => {
            say(&error.to_string());
            error.exit_code()
        }
    }
}
