//! The registry of engines, and the choice among them.

use coracle_api::{Engine, Host, ImageFacts, Refusal, Request};

use super::LaunchError;

/// Every engine, in the order in which `auto` tries them: the less it costs the guest, the earlier.
pub static ENGINES: [&dyn Engine; 5] = [
    &coracle_namespaces::Namespaces,
    &coracle_trap::Trap,
    &coracle_preload::Preload,
    &coracle_ptrace::Ptrace,
    &coracle_apptainer::Apptainer,
];

/// An engine and what it says to a run.
#[derive(Clone)]
pub struct Candidate {
    /// The engine.
    pub engine: &'static dyn Engine,
    /// Its answer.
    pub answer: Result<(), Refusal>,
    /// What the run would get less of than it asks for.
    pub notes: Vec<String>,
}

/// The engine that a name or an alias means; letter case does not matter.
#[must_use]
pub fn find(engines: &[&'static dyn Engine], name: &str) -> Option<&'static dyn Engine> {
    engines.iter().copied().find(|engine| {
        engine.name().eq_ignore_ascii_case(name)
            || engine.aliases().iter().any(|alias| alias.eq_ignore_ascii_case(name))
    })
}

/// Asks every engine; for `explain`.
#[must_use]
pub fn ask_all(engines: &[&'static dyn Engine], host: &Host, facts: &ImageFacts, request: &Request) -> Vec<Candidate> {
    engines
        .iter()
        .map(|engine| {
            let answer = engine.probe(host, facts, request);
            let notes = if answer.is_ok() { engine.notes(host, request) } else { Vec::new() };
            Candidate { engine: *engine, answer, notes }
        })
        .collect()
}

/// The engine for this run, and those that refused before it.
///
/// # Errors
/// [`LaunchError`] if the engine asked for does not exist or refuses, or if all of them refuse.
pub fn choose(
    engines: &[&'static dyn Engine],
    asked: Option<&str>,
    host: &Host,
    facts: &ImageFacts,
    request: &Request,
) -> Result<(&'static dyn Engine, Vec<Candidate>), LaunchError> {
    if let Some(name) = asked.filter(|name| !name.eq_ignore_ascii_case("auto")) {
        let engine = find(engines, name)
            .ok_or_else(|| LaunchError::NoSuchEngine { asked: name.to_owned(), known: known(engines) })?;
        return match engine.probe(host, facts, request) {
            Ok(()) => Ok((engine, Vec::new())),
            Err(refusal) => {
                let refusal = match refusal.advice {
                    Some(_) => refusal,
                    None => refusal.advise("ask for another one, or for `auto`, which takes the first that can"),
                };
                Err(LaunchError::EngineRefused { engine: engine.name(), refusal: refusal.to_string() })
            }
        };
    }
    let mut refused = Vec::new();
    for engine in engines.iter().copied() {
        match engine.probe(host, facts, request) {
            Ok(()) => return Ok((engine, refused)),
            answer => refused.push(Candidate { engine, answer, notes: Vec::new() }),
        }
    }
    let refusals =
        refused.iter().filter_map(|one| one.answer.as_ref().err().map(|refusal| (one.engine.name(), refusal)));
    let refusals = refusals.map(|(name, refusal)| format!("{name}: {refusal}")).collect::<Vec<_>>().join("; ");
    Err(LaunchError::NoEngine { refusals })
}

/// All names that an engine may be called by.
#[must_use]
pub fn known(engines: &[&'static dyn Engine]) -> String {
    let mut names = vec!["auto".to_owned()];
    for engine in engines {
        match engine.aliases() {
            [] => names.push(engine.name().to_owned()),
            aliases => names.push(format!("{} ({})", engine.name(), aliases.join(", "))),
        }
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use coracle_api::{Ended, LaunchSpec, RunError};

    use super::*;

    struct Fake(&'static str, &'static [&'static str], bool);

    impl Engine for Fake {
        fn name(&self) -> &'static str {
            self.0
        }
        fn aliases(&self) -> &'static [&'static str] {
            self.1
        }
        fn stays(&self) -> bool {
            false
        }
        fn probe(&self, _: &Host, _: &ImageFacts, _: &Request) -> Result<(), Refusal> {
            if self.2 { Ok(()) } else { Err(Refusal::new("the kernel says no").advise("ask it nicely")) }
        }
        fn run(&self, _: &LaunchSpec) -> Result<Ended, RunError> {
            Ok(Ended::Exited(0))
        }
    }

    static NO: Fake = Fake("first", &["R1"], false);
    static YES: Fake = Fake("second", &["P1", "P2"], true);

    fn chosen(engines: &[&'static dyn Engine], asked: Option<&str>) -> Result<(&'static str, usize), String> {
        choose(engines, asked, &Host::read(None), &ImageFacts::default(), &Request::default())
            .map(|(engine, refused)| (engine.name(), refused.len()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn auto_takes_the_first_that_accepts_and_remembers_who_refused() {
        assert_eq!(chosen(&[&NO, &YES], None), Ok(("second", 1)));
        assert_eq!(chosen(&[&YES, &NO], Some("auto")), Ok(("second", 0)));
        let error = chosen(&[&NO, &NO], None).expect_err("both refuse");
        assert!(error.contains("first: the kernel says no: ask it nicely"), "{error}");
    }

    #[test]
    fn an_engine_that_was_asked_for_is_never_replaced() {
        assert_eq!(chosen(&[&NO, &YES], Some("p2")), Ok(("second", 0)));
        let error = chosen(&[&NO, &YES], Some("R1")).expect_err("it refuses");
        assert!(error.starts_with("engine first: the kernel says no"), "{error}");
        let error = chosen(&[&NO, &YES], Some("R9")).expect_err("there is none");
        assert!(error.contains("second (P1, P2)"), "{error}");
    }

    #[test]
    fn every_mode_of_udocker_finds_its_engine() {
        for (mode, name) in [
            ("R1", "namespaces"),
            ("F1", "preload"),
            ("F2", "preload"),
            ("F3", "preload"),
            ("F4", "preload"),
            ("P1", "ptrace"),
            ("P2", "ptrace"),
            ("S1", "apptainer"),
        ] {
            assert_eq!(find(&ENGINES, mode).map(Engine::name), Some(name), "{mode}");
        }
    }
}
