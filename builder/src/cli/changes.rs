//! `--entrypoint`, `--cmd`, `--env` and their like: changes to how the image runs. Rules are those of a Dockerfile.

use std::ffi::OsString;

use anyhow::{Context as _, bail, ensure};
use coracle_format::{Defaults, ImageConfig};

use super::args::ChangeArgs;

/// Applies the changes to a config, and gives the runtime options that they fix on top of those fixed `before`. `variable`
/// reads our own environment.
pub(super) fn apply(
    changes: &ChangeArgs,
    config: &mut ImageConfig,
    before: Defaults,
    variable: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<Defaults> {
    if let Some(text) = &changes.entrypoint {
        config.entrypoint = command(text).context("--entrypoint")?;
        // A new entrypoint knows nothing of arguments meant for the old one.
        config.cmd = None;
    }
    if let Some(text) = &changes.cmd {
        config.cmd = command(text).context("--cmd")?;
    }
    for given in &changes.env {
        let setting = match given.split_once('=') {
            Some(("", _)) => bail!("--env {given}: it has no name: write KEY=VALUE"),
            Some(_) => given.clone(),
            None => {
                let value = variable(given);
                let value = value.with_context(|| format!("--env {given}: it is not set here: write {given}=VALUE"))?;
                format!("{given}={value}")
            }
        };
        set(&mut config.env, setting);
    }
    if let Some(directory) = &changes.workdir {
        ensure!(!directory.is_empty(), "--workdir: it is empty: name a directory of the image");
        config.working_dir = Some(match (directory.starts_with('/'), &config.working_dir) {
            (true, _) => directory.clone(),
            (false, base) => format!("{}/{directory}", base.as_deref().unwrap_or("").trim_end_matches('/')),
        });
    }
    if let Some(user) = &changes.user {
        config.user = Some(user.clone()).filter(|user| !user.is_empty());
    }
    for volume in &changes.volume {
        ensure!(
            volume.starts_with(['/', '~', '$', '.']),
            "--volume {volume}: it names no place: write HOST[:GUEST][:ro]"
        );
    }
    let mut defaults = before;
    defaults.isolated |= changes.isolated;
    defaults.engine = changes.engine.clone().or(defaults.engine);
    defaults.volumes.extend(changes.volume.iter().cloned());
    Ok(defaults)
}

/// The options as given, for the bundle's provenance.
pub(super) fn as_given(changes: &ChangeArgs) -> Vec<String> {
    let ChangeArgs { copy, exclude, entrypoint, cmd, env, workdir, volume, user, isolated, engine } = changes;
    let text = |list: &[OsString]| list.iter().map(|value| value.to_string_lossy().into_owned()).collect();
    let one = |value: &Option<String>| value.iter().cloned().collect();
    let all: [(&str, Vec<String>); 9] = [
        ("copy", text(copy)),
        ("exclude", text(exclude)),
        ("entrypoint", one(entrypoint)),
        ("cmd", one(cmd)),
        ("env", env.clone()),
        ("workdir", one(workdir)),
        ("volume", volume.clone()),
        ("user", one(user)),
        ("engine", one(engine)),
    ];
    let given =
        all.into_iter().flat_map(|(name, values)| values.into_iter().map(move |value| format!("--{name}={value}")));
    given.chain(isolated.then(|| "--isolated".to_owned())).collect()
}

/// A JSON list is the command itself; other text is for the shell; nothing is none.
fn command(text: &str) -> anyhow::Result<Option<Vec<String>>> {
    if text.trim_start().starts_with('[') {
        let words: Vec<String> = serde_json::from_str(text)
            .with_context(|| format!("{text}: it is no JSON list of strings, such as [\"sh\", \"-c\", \"date\"]"))?;
        return Ok(Some(words).filter(|words| !words.is_empty()));
    }
    Ok((!text.is_empty()).then(|| vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()]))
}

/// Replaces a variable where it is, or adds it at the end.
fn set(env: &mut Vec<String>, setting: String) {
    let name = |setting: &str| setting.split('=').next().unwrap_or_default().to_owned();
    match env.iter_mut().find(|there| name(there) == name(&setting)) {
        Some(there) => *there = setting,
        None => env.push(setting),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(config: &mut ImageConfig, changes: ChangeArgs) -> anyhow::Result<Defaults> {
        apply(&changes, config, Defaults::default(), |name| (name == "HERE").then(|| "value".to_owned()))
    }

    #[test]
    fn commands_follow_a_dockerfile() {
        let list = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        let mut config = ImageConfig { cmd: list(&["old"]), entrypoint: list(&["older"]), ..ImageConfig::default() };
        let entrypoint = |text: &str| ChangeArgs { entrypoint: Some(text.into()), ..ChangeArgs::default() };
        changed(&mut config, entrypoint(r#"["a", "b c"]"#)).unwrap();
        assert_eq!((&config.entrypoint, &config.cmd), (&list(&["a", "b c"]), &None));
        changed(&mut config, ChangeArgs { cmd: Some("date; id".into()), ..ChangeArgs::default() }).unwrap();
        assert_eq!((&config.entrypoint, &config.cmd), (&list(&["a", "b c"]), &list(&["/bin/sh", "-c", "date; id"])));
        changed(&mut config, entrypoint("")).unwrap();
        assert_eq!((config.entrypoint.as_ref(), config.cmd.as_ref()), (None, None));
        assert!(changed(&mut config, entrypoint("[1]")).is_err());
    }

    #[test]
    fn variables_are_replaced_in_place_or_taken_from_here() {
        let mut config = ImageConfig { env: vec!["A=1".into(), "B=2".into()], ..ImageConfig::default() };
        let env =
            |list: &[&str]| ChangeArgs { env: list.iter().map(|s| (*s).into()).collect(), ..ChangeArgs::default() };
        changed(&mut config, env(&["A=x=y", "C=", "HERE"])).unwrap();
        assert_eq!(config.env, ["A=x=y", "B=2", "C=", "HERE=value"]);
        for wrong in ["=x", "ABSENT"] {
            assert!(changed(&mut config, env(&[wrong])).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_relative_working_directory_is_below_the_old_one() {
        let mut config = ImageConfig { working_dir: Some("/srv/".into()), ..ImageConfig::default() };
        let workdir = |text: &str| ChangeArgs { workdir: Some(text.into()), ..ChangeArgs::default() };
        changed(&mut config, workdir("app")).unwrap();
        assert_eq!(config.working_dir.as_deref(), Some("/srv/app"));
        changed(&mut config, workdir("/x")).unwrap();
        assert_eq!(config.working_dir.as_deref(), Some("/x"));
    }
}
