//! What this engine can do for a run, and what not.

use coracle_api::{Begins, Host, ImageFacts, Refusal, Request, Unshare};

use crate::shim;

/// Interpreters whose programs the shim can be brought into: by the name of their file.
const LOADERS: [&str; 2] = ["ld-linux-x86-64.so.", "ld-musl-x86_64.so."];

pub(crate) fn probe(_: &Host, facts: &ImageFacts, request: &Request) -> Result<(), Refusal> {
    if !shim::is_there() {
        return Err(Refusal::new("not in this version of Coracle"));
    }
    judge(facts, request)
}

/// Whether image and request are such that this engine can serve them.
fn judge(facts: &ImageFacts, request: &Request) -> Result<(), Refusal> {
    if !cfg!(target_arch = "x86_64") {
        return Err(Refusal::new("its shim is for x86-64 alone"));
    }
    if !matches!(facts.architecture.as_str(), "" | "amd64") {
        return Err(Refusal::new(format!("programs for {} have no shim here", facts.architecture))
            .advise("use `ptrace`, where the processor can run them"));
    }
    if request.isolated {
        return Err(Refusal::new("a library inside the guest's programs isolates nothing")
            .advise("leave out `isolated`, or use `namespaces`"));
    }
    if request.unshare != Unshare::default() {
        return Err(Refusal::new("namespaces were asked for (a host name needs one), and a library makes none")
            .advise("leave that out, or use `namespaces`"));
    }
    if request.kernel {
        return Err(Refusal::new("another release of the kernel was asked for, and the description of a run has none")
            .advise("leave that out, or use `ptrace`"));
    }
    match request.begins {
        Begins::Unknown | Begins::Dynamic => {}
        Begins::Static => {
            return Err(Refusal::new(
                "the program to begin with is linked statically, and no loader would bring the shim",
            )
            .advise("use `ptrace`"));
        }
        Begins::Foreign => {
            return Err(Refusal::new("the program to begin with is a 32-bit one, and the shim is for 64-bit programs")
                .advise("use `ptrace`"));
        }
        Begins::OwnCalls => {
            return Err(Refusal::new("the program to begin with is a Go program, whose system calls no library sees")
                .advise("use `ptrace`"));
        }
    }
    let known = |name: &String| {
        let file = name.rsplit('/').next().unwrap_or_default();
        LOADERS.iter().any(|loader| file.starts_with(loader))
    };
    // An image without facts (a directory of a container's) is judged when its program is known.
    if !facts.interpreters.is_empty() && !facts.interpreters.iter().any(known) {
        return Err(Refusal::new(format!(
            "no program of the image is loaded by glibc or musl for x86-64 (but by {})",
            facts.interpreters.join(", ")
        ))
        .advise("use `ptrace`"));
    }
    if facts.interpreters.is_empty() && !facts.static_programs.is_empty() {
        return Err(Refusal::new(
            "all programs of the image are linked statically, and no loader would bring the shim",
        )
        .advise("use `ptrace`"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(facts: &ImageFacts, request: &Request) -> Result<(), String> {
        judge(facts, request).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn each_refusal_says_why() {
        let dynamic = ImageFacts {
            architecture: "amd64".into(),
            interpreters: vec!["/lib/ld-musl-x86_64.so.1".into()],
            static_programs: vec!["/sbin/ldconfig".into()],
            ..ImageFacts::default()
        };
        assert_eq!(
            answer(&dynamic, &Request { root: true, ports: true, writable: true, ..Request::default() }),
            Ok(())
        );
        assert_eq!(answer(&ImageFacts::default(), &Request::default()), Ok(()), "nothing is known");
        let refused = |facts: &ImageFacts, request, word: &str| {
            let said = answer(facts, &request).expect_err(word);
            assert!(said.contains(word), "{said}");
        };
        let request = Request::default();
        refused(&ImageFacts { architecture: "arm64".into(), ..dynamic.clone() }, request, "arm64");
        refused(&ImageFacts { interpreters: Vec::new(), ..dynamic.clone() }, request, "statically");
        let narrow = ImageFacts { interpreters: vec!["/lib/ld-linux.so.2".into()], ..dynamic.clone() };
        refused(&narrow, request, "/lib/ld-linux.so.2");
        refused(&dynamic, Request { isolated: true, ..request }, "isolates");
        refused(&dynamic, Request { begins: Begins::Static, ..request }, "statically");
        refused(&dynamic, Request { begins: Begins::Foreign, ..request }, "32-bit");
        refused(&dynamic, Request { begins: Begins::OwnCalls, ..request }, "Go program");
        let unshare = Unshare { uts: true, ..Unshare::default() };
        refused(&dynamic, Request { unshare, ..request }, "host name");
    }
}
