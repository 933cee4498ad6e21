//! Ranks of MPI programs, started by the host's launcher from one bundle: one tree, one user namespace, and messages that
//! are copied from one rank's memory to the other's.

use std::{fs, path::PathBuf};

use harness::{
    Output, Sandbox, Slurm, coracle,
    mpi::{self, Library},
    skip, user,
};

/// What each rank of `examples/mpi/ranks.c` sends, and reads of its neighbour's memory itself.
const LENGTH: usize = 4 << 20;

/// A sandbox with `ranks.run`, a bundle of the program with this library.
fn prepare(library: Library) -> Option<(Sandbox, PathBuf)> {
    if library.is_missing() {
        return None;
    }
    let sandbox = Sandbox::new();
    let program = mpi::compile(&sandbox, library, "examples/mpi/ranks.c".as_ref(), "ranks");
    let bundle = mpi::bundle(&sandbox, library, &[&program]);
    Some((sandbox, bundle))
}

/// The launcher's own arguments.
fn launcher(library: Library, ranks: usize) -> Vec<String> {
    let mut args = vec![library.mpirun()];
    if library == Library::OpenMpi {
        args.push("--oversubscribe".to_owned());
    }
    args.extend(["-n".to_owned(), ranks.to_string()]);
    args
}

/// Runs the launcher with these arguments of its own and of the bundle's.
fn run(sandbox: &Sandbox, launcher: &[String], bundle: &[&str]) -> Output {
    // Should ranks wait for each other for ever, the test fails all the same.
    let args = ["-k", "5", "60"].map(str::to_owned).into_iter().chain(launcher.iter().cloned());
    sandbox.run("timeout", args.chain(bundle.iter().map(|arg| (*arg).to_owned())))
}

/// What the program says when all is well.
fn well(ranks: usize) -> String {
    let each: String =
        (0..ranks).map(|rank| format!("\nrank {rank}: message whole, neighbour's memory: read")).collect();
    format!("{ranks} ranks, 1 user namespace(s), 1 tree(s){each}")
}

#[test]
fn the_library_copies_from_rank_to_rank() {
    let Some((sandbox, bundle)) = prepare(Library::OpenMpi) else { return };
    if skip::lacks(&["strace"]) {
        return;
    }
    let trace = sandbox.work("trace");
    let trace_text = trace.display().to_string();
    let mut args: Vec<String> = [
        "strace",
        "-f",
        "-qq",
        "-e",
        "trace=process_vm_readv,process_vm_writev",
        "-e",
        "signal=none",
        "-o",
        &trace_text,
    ]
    .map(str::to_owned)
    .into();
    args.extend(launcher(Library::OpenMpi, 2));
    // CMA, as always; named, so that Open MPI says so if it cannot.
    args.extend(["--mca", "pml", "ob1", "--mca", "btl", "self,vader"].map(str::to_owned));
    // The first start of all, so that the ranks also unpack together.
    let output = run(&sandbox, &args, &[bundle.to_str().unwrap()]);
    assert_eq!(output.ok(), well(2), "{output}");
    assert!(!output.stderr.contains("CMA"), "{output}");
    let calls = fs::read_to_string(&trace).unwrap();
    let copies = calls.lines().filter(|line| line.ends_with(&format!("= {LENGTH}"))).count();
    // Two by the program itself, two by the library.
    assert!(copies >= 4 && !calls.contains("EPERM"), "{calls}");
}

#[test]
fn ranks_that_are_kept_apart_cannot() {
    let Some((sandbox, bundle)) = prepare(Library::OpenMpi) else { return };
    let mut args = launcher(Library::OpenMpi, 2);
    // The library has to be told, or waits for a copy that never comes.
    let without = "--mca pml ob1 --mca btl self,vader --mca btl_vader_single_copy_mechanism none";
    args.extend(without.split(' ').map(str::to_owned));
    let bundle = bundle.to_str().unwrap();
    let text = run(&sandbox, &args, &[bundle, "--coracle-engine=namespaces", "--coracle-join=never"]);
    assert!(text.ok().starts_with("2 ranks, 2 user namespace(s), 1 tree(s)"), "{text}");
    assert_eq!(text.ok().matches("message whole, neighbour's memory: Operation not permitted").count(), 2, "{text}");
    // Different options, different views: each rank gets what it asked for.
    let volume = format!("--coracle-volume={}:/data", sandbox.make_dir("data").display());
    let own = [bundle, ":", "-n", "1", bundle, &volume];
    args = launcher(Library::OpenMpi, 1);
    args.extend(without.split(' ').map(str::to_owned));
    let text = run(&sandbox, &args, &own);
    assert!(text.ok().starts_with("2 ranks, 2 user namespace(s), 1 tree(s)"), "{text}");
    // And any runs may share that want to.
    let text = run(&sandbox, &args, &[bundle, "--coracle-join=us", ":", "-n", "1", bundle, "--coracle-join=us"]);
    assert_eq!(text.ok(), well(2), "{text}");
}

#[test]
fn ranks_of_mpich_share_memory_too() {
    let Some((sandbox, bundle)) = prepare(Library::Mpich) else { return };
    let bundle = bundle.to_str().unwrap();
    // PMI comes by inherited descriptors here, shared memory by /dev/shm and by /proc/PID/fd.
    let output = run(&sandbox, &launcher(Library::Mpich, 3), &[bundle]);
    assert_eq!(output.ok(), well(3), "{output}");
}

#[test]
fn every_engine_runs_ranks() {
    for library in [Library::OpenMpi, Library::Mpich] {
        let Some((sandbox, bundle)) = prepare(library) else { return };
        for engine in ["namespaces", "F1", "F3", "P1"] {
            let engine = format!("--coracle-engine={engine}");
            let output = run(&sandbox, &launcher(library, 2), &[bundle.to_str().unwrap(), &engine]);
            assert_eq!(output.ok(), well(2), "{engine}: {output}");
        }
    }
}

#[test]
fn ranks_of_a_step_of_slurm_meet_on_each_node() {
    let Some((mut sandbox, bundle)) = prepare(Library::OpenMpi) else { return };
    let Some(slurm) = Slurm::start(&mut sandbox) else { return };
    // Some releases print the list as an error.
    let listed = sandbox.run("srun", ["--mpi=list"]);
    if !format!("{}{}", listed.stdout, listed.stderr).contains("pmix") {
        skip::because("this Slurm has no plugin for PMIx");
        return;
    }
    // A disk of each node's own: one unpack on each, and other directories of the job's.
    sandbox.set("CORACLE_CACHE", slurm.local()).set("TMPDIR", slurm.local());
    let step = "srun --mpi=pmix -N2 -n4 --ntasks-per-node=2 --distribution=block --mem-per-cpu=400"
        .split(' ')
        .map(str::to_owned);
    let step: Vec<String> = step.collect();
    let output = run(&sandbox, &step, &[bundle.to_str().unwrap(), "--coracle-engine=namespaces"]);
    let rank = |number: u32, memory: &str| format!("\nrank {number}: message whole, neighbour's memory: {memory}");
    // Ranks 0 and 1 are on one node, 2 and 3 on the other one, whose processes are in other namespaces.
    let (there, here) = ("Operation not permitted", "read");
    let each: String = (0..4).map(|number| rank(number, if number % 2 == 0 { there } else { here })).collect();
    assert_eq!(output.ok(), format!("4 ranks, 2 user namespace(s), 2 tree(s){each}"), "{output}");
}

#[test]
fn a_rank_that_fails_ends_the_job_and_nothing_stays() {
    let Some((sandbox, bundle)) = prepare(Library::OpenMpi) else { return };
    let bundle = bundle.to_str().unwrap();
    let script = "[ $OMPI_COMM_WORLD_RANK = 1 ] && exit 7; exec sleep 50";
    let output =
        run(&sandbox, &launcher(Library::OpenMpi, 3), &[bundle, "--coracle-entrypoint=", "/bin/sh", "-c", script]);
    output.code_is(7);
    // The next job begins anew where the last one was.
    let output = run(&sandbox, &launcher(Library::OpenMpi, 2), &[bundle]);
    assert_eq!(output.ok(), well(2), "{output}");
    let left = sandbox.run("pgrep", ["-f", bundle]);
    assert!(left.stdout.trim().is_empty(), "{left}");
}

#[test]
fn ranks_in_one_container_of_the_store_share_it() {
    let Some((sandbox, bundle)) = prepare(Library::OpenMpi) else { return };
    let (tree, command) =
        (bundle.with_extension("tree"), format!("CMD [{:?}]", sandbox.work("ranks").display().to_string()));
    sandbox.run("tar", ["-cf", "tree.tar", "-C", tree.to_str().unwrap(), "."]).ok();
    sandbox.coracle(["import", "tree.tar", "mpi", "-c", &command]).ok();
    sandbox.coracle(["create", "--name", "ranks", "mpi"]).ok();
    let program = coracle().to_str().unwrap();
    let tmp = format!("--volume={0}:{0}", sandbox.path().join("tmp").display());
    // PMIx serves nobody but the user who started it.
    let user = format!("--user={}", user::ordinary().uid);
    let run_it = [program, "run", "--execmode", "namespaces", "--hostenv", &user, &tmp, "ranks"];
    let output = run(&sandbox, &launcher(Library::OpenMpi, 2), &run_it);
    assert!(output.ok().ends_with(&well(2)), "{output}");
}
