//! Which program runs: Docker's rules, a link's name, or the image's shell.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use coracle_format::ImageConfig;

use super::{LaunchError, Tree, identity};
use crate::options::{Action, Options};

/// What decides the command besides the image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) options: &'a Options,
    /// The application's arguments.
    pub(super) args: &'a [OsString],
    /// `argv[0]` as the launcher was started.
    pub(super) argv0: &'a OsStr,
    /// The bundle's file.
    pub(super) bundle: &'a Path,
    /// The guest's PATH.
    pub(super) path: &'a OsStr,
}

/// The guest's argv, and why it is that.
pub(super) fn command(config: &ImageConfig, asked: Asked, tree: Tree) -> Result<(Vec<OsString>, String), LaunchError> {
    let with_args = |mut argv: Vec<OsString>| {
        argv.extend_from_slice(asked.args);
        argv
    };
    if asked.options.shell {
        return Ok((with_args(vec![identity::shell(tree, asked.path)?]), "the image's shell".to_owned()));
    }
    if asked.options.entrypoint.is_none()
        && let Some(name) = link_name(asked.argv0, asked.bundle)
        && tree.find_program(name, asked.path).is_some()
    {
        let why = format!("the name of the link, {}", name.to_string_lossy());
        return Ok((with_args(vec![name.to_owned()]), why));
    }
    let os = |list: &Option<Vec<String>>| list.iter().flatten().map(OsString::from).collect::<Vec<_>>();
    // An entrypoint of the user's drops the image's Cmd, as with Docker.
    let (entrypoint, cmd, mut why) = match &asked.options.entrypoint {
        Some(program) if program.is_empty() => (Vec::new(), Vec::new(), "arguments".to_owned()),
        Some(program) => (vec![program.clone()], Vec::new(), "--coracle-entrypoint".to_owned()),
        None => (os(&config.entrypoint), os(&config.cmd), "the image's configuration".to_owned()),
    };
    let mut argv = entrypoint;
    if asked.args.is_empty() {
        argv.extend(cmd);
    } else {
        if argv.is_empty() {
            "arguments".clone_into(&mut why);
        }
        argv.extend_from_slice(asked.args);
    }
    if !argv.is_empty() {
        return Ok((argv, why));
    }
    if asked.options.action == Action::Explain {
        // Whoever wants to know how programs would run here needs no program for that.
        let why = "nothing: the image names no program, and its shell stands for whatever will be given";
        return Ok((vec![identity::shell(tree, asked.path)?], why.to_owned()));
    }
    Err(LaunchError::NothingToRun)
}

/// The name that a link to the bundle gives it, if it differs from the bundle's own.
fn link_name<'a>(argv0: &'a OsStr, bundle: &Path) -> Option<&'a OsStr> {
    let plain = |name: &'a OsStr| OsStr::from_bytes(name.as_bytes().strip_suffix(b".run").unwrap_or(name.as_bytes()));
    let name = plain(Path::new(argv0).file_name()?);
    let own = bundle.file_name()?.as_bytes();
    let own = own.strip_suffix(b".run").unwrap_or(own);
    (name.as_bytes() != own && !name.is_empty() && name != "." && name != "..").then_some(name)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    struct Case {
        dir: tempfile::TempDir,
        config: ImageConfig,
        options: Options,
    }

    impl Case {
        fn new(entrypoint: &[&str], cmd: &[&str]) -> Self {
            let dir = tempfile::tempdir().expect("the temporary directory is writable");
            fs::create_dir(dir.path().join("bin")).expect("it is empty");
            for program in ["pip", "sh"] {
                let path = dir.path().join("bin").join(program);
                fs::write(&path, "").expect("writable");
                fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
            }
            let list = |list: &[&str]| (!list.is_empty()).then(|| list.iter().map(ToString::to_string).collect());
            let config = ImageConfig { entrypoint: list(entrypoint), cmd: list(cmd), ..ImageConfig::default() };
            Self { dir, config, options: Options::default() }
        }

        fn argv(&self, argv0: &str, args: &[&str]) -> Result<Vec<String>, String> {
            let args: Vec<OsString> = args.iter().map(OsString::from).collect();
            let asked = Asked {
                options: &self.options,
                args: &args,
                argv0: OsStr::new(argv0),
                bundle: Path::new("/x/python.run"),
                path: OsStr::new("/bin"),
            };
            command(&self.config, asked, Tree::new(self.dir.path()))
                .map(|(argv, _)| argv.iter().map(|arg| arg.to_string_lossy().into_owned()).collect())
                .map_err(|error| error.to_string())
        }
    }

    fn strings(args: &[&str]) -> Result<Vec<String>, String> {
        Ok(args.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn arguments_replace_cmd_and_follow_the_entrypoint() {
        let case = Case::new(&["python"], &["-i"]);
        assert_eq!(case.argv("./python.run", &[]), strings(&["python", "-i"]));
        assert_eq!(case.argv("./python.run", &["", "-x"]), strings(&["python", "", "-x"]));
        let case = Case::new(&[], &["sh", "-l"]);
        assert_eq!(case.argv("python", &[]), strings(&["sh", "-l"]));
        assert_eq!(case.argv("python", &["ls"]), strings(&["ls"]));
        let mut case = Case::new(&[], &[]);
        assert!(case.argv("python.run", &[]).is_err_and(|error| error.contains("--coracle-shell")));
        case.options.action = Action::Explain;
        assert_eq!(case.argv("python.run", &[]), strings(&["sh"]), "any program serves to explain");
    }

    #[test]
    fn an_entrypoint_of_the_users_drops_cmd() {
        let mut case = Case::new(&["python"], &["-i"]);
        case.options.entrypoint = Some("ls".into());
        assert_eq!(case.argv("pip", &[]), strings(&["ls"]));
        case.options.entrypoint = Some("".into());
        assert_eq!(case.argv("python.run", &["id"]), strings(&["id"]));
        assert!(case.argv("python.run", &[]).is_err());
    }

    #[test]
    fn a_links_name_runs_that_program_if_the_image_has_it() {
        let case = Case::new(&["python"], &[]);
        assert_eq!(case.argv("/usr/local/bin/pip", &["list"]), strings(&["pip", "list"]));
        assert_eq!(case.argv("./pip.run", &["list"]), strings(&["pip", "list"]));
        assert_eq!(case.argv("./python-3.run", &["x"]), strings(&["python", "x"]), "no program of that name");
    }

    #[test]
    fn the_shell_is_the_images() {
        let mut case = Case::new(&["python"], &[]);
        case.options.shell = true;
        assert_eq!(case.argv("python.run", &["-c", "x"]), strings(&["sh", "-c", "x"]));
    }
}
