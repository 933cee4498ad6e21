//! Completions and manual pages, read by the programs that they are for; and listings as programs and people want them.

use std::fs;

use harness::{Sandbox, skip};
use serde_json::Value;

use super::{runs::World, terminal::Terminal};

/// The completions of a shell, in a file of the working directory.
fn completions(sandbox: &Sandbox, shell: &str) -> String {
    let text = sandbox.coracle(["completions", shell]).ok().to_owned();
    sandbox.write(&format!("coracle.{shell}"), text + "\n").display().to_string()
}

#[test]
fn bash_completes() {
    if skip::lacks(&["bash"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let file = completions(&sandbox, "bash");
    sandbox.run("bash", ["-n", &file]).ok();
    let script = format!(
        "source {file}; complete -p coracle; COMP_WORDS=(coracle expo); COMP_CWORD=1; _coracle coracle expo coracle; \
         echo \"${{COMPREPLY[@]}}\"; COMP_WORDS=(coracle run --execm); COMP_CWORD=2; _coracle coracle --execm run; \
         echo \"${{COMPREPLY[@]}}\""
    );
    let said = sandbox.run("bash", ["--norc", "-c", &script]);
    let lines: Vec<&str> = said.ok().lines().collect();
    assert!(lines[0].contains("-F _coracle") && lines[1] == "export" && lines[2] == "--execmode", "{said}");
}

#[test]
fn zsh_completes() {
    if skip::lacks(&["zsh"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let file = completions(&sandbox, "zsh");
    sandbox.run("zsh", ["-n", &file]).ok();
    let script =
        format!("autoload -U compinit; compinit -u -d dump; source {file}; echo $_comps[coracle]; whence -w _coracle");
    assert_eq!(sandbox.run("zsh", ["-f", "-c", &script]).ok(), "_coracle\n_coracle: function");
}

#[test]
fn fish_completes() {
    if skip::lacks(&["fish"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let file = completions(&sandbox, "fish");
    sandbox.run("fish", ["-n", &file]).ok();
    let said = sandbox
        .run("fish", ["-c", &format!("source {file}; complete -C 'coracle expo'; complete -C 'coracle run --execm'")]);
    assert!(said.ok().contains("export\t") && said.ok().contains("--execmode\t"), "{said}");
}

#[test]
fn every_command_has_a_manual_page_that_man_shows_without_warnings() {
    if skip::lacks(&["man", "groff"]) {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.coracle(["man", "deep/man1"]).ok();
    let pages: Vec<_> = fs::read_dir(sandbox.work("deep/man1")).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(pages.len() > 45, "{} pages", pages.len());
    for page in &pages {
        let shown = sandbox.run("man", ["-l", "--warnings", page.to_str().unwrap()]);
        assert!(shown.ok().contains("NAME") && shown.stderr.is_empty(), "{}: {shown}", page.display());
    }
    let run = sandbox.run("man", ["-l", "deep/man1/coracle-run.1"]);
    for part in ["--tmpfs", "--health-cmd", "--kernel", "--pull"] {
        assert!(run.ok().contains(part), "{part}");
    }
    let commands = sandbox.coracle(["--help"]);
    for line in commands.ok().lines().skip_while(|line| !line.starts_with("Commands:")).skip(1) {
        let Some(line) = line.strip_prefix("  ") else { break };
        // A description that goes on is set in further.
        let Some(command) = line.split(' ').next().filter(|word| !word.is_empty()) else { continue };
        let page = format!("coracle-{command}.1");
        assert!(pages.iter().any(|path| path.ends_with(&page)), "{page}");
    }
}

#[test]
fn listings_are_for_people_and_for_programs() {
    let Some(world) = World::new() else { return };
    let sandbox = &world.sandbox;
    let tar = world.image.trim_start_matches("rootfs:").to_owned();
    sandbox.coracle(["import", &tar, "my/image:1"]).ok();
    world.run(&[], "touch /changed").ok();
    sandbox
        .coracle(["create", "--name=made", "--pull=never", "-l", "of=test", "my/image:1", "a-command-with-a-long-name"])
        .ok();
    for command in [&["ps"][..], &["images"]] {
        let run = |more: &[&str]| sandbox.coracle([command, more].concat());
        let table = run(&[]);
        let lines: Vec<&str> = table.ok().lines().collect();
        assert!(lines.len() > 1 && lines[0].to_uppercase() == lines[0], "a heading in capitals: {table}");
        assert!(lines[0].contains("   "), "columns three blanks apart, as Docker's: {table}");
        // Each line is an object, whose members templates name too.
        for line in run(&["--format", "json"]).ok().lines() {
            let object: Value = serde_json::from_str(line).unwrap();
            let members = object.as_object().unwrap();
            assert!(members.len() > 5 && members.values().all(Value::is_string), "{object}");
            let template: String = members.keys().map(|name| format!("{{{{.{name}}}}}|")).collect();
            let listed = run(&["--format", &template]);
            assert!(listed.ok().lines().any(|line| line.split('|').count() == members.len() + 1), "{listed}");
        }
        let quiet = run(&["-q"]);
        assert!(quiet.ok().lines().all(|id| id.len() == 12), "{quiet}");
        let whole = run(&["-q", "--no-trunc"]);
        for (id, short) in whole.ok().lines().zip(quiet.ok().lines()) {
            assert!(id.len() >= 32 && id.trim_start_matches("sha256:").starts_with(short), "{id} {short}");
        }
        run(&["--format", "table {{.ID}}"]).ok();
        run(&["--format", "{{.ID"]).fails_as(1, &["--format"]);
        run(&["--format", "{{.Nope}}"]).fails_as(1, &["no field .Nope"]);
        // Colours are for terminals, and for those who want them.
        for (variable, value, coloured) in [("NO_COLOR", "1", false), ("X", "1", true), ("TERM", "dumb", false)] {
            let mut on_terminal = sandbox.command(harness::coracle());
            on_terminal.args(command).env("TERM", "xterm").env(variable, value);
            let mut terminal = Terminal::start(on_terminal);
            terminal.expect("my/image");
            assert_eq!(
                terminal.seen.contains("\u{1b}["),
                coloured,
                "{command:?} {variable}={value}: {}",
                terminal.seen
            );
        }
    }
    let command = sandbox.coracle(["ps", "--format", "{{.Command}}", "-f", "name=made"]);
    assert_eq!(command.ok(), "\"a-command-with-a-lo…\"");
    let whole = sandbox.coracle(["ps", "--no-trunc", "--format", "{{.Command}}", "-f", "label=of=test"]);
    assert_eq!(whole.ok(), "\"a-command-with-a-long-name\"");
    assert_eq!(sandbox.coracle(["ps", "-l", "-q"]).ok(), sandbox.coracle(["ps", "-n", "1", "-q"]).ok());
}
