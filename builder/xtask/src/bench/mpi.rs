//! Messages between ranks: `mpirun -n 2` of a bundle against the same program without one, on the same libraries.
//!
//! The program measures itself after `MPI_Init`; what it takes to start and to end is told separately. Each round runs both,
//! one after the other, in turns who goes first, so a round gives one ratio; the table has their median and its 95 %
//! confidence interval (by order statistics, so that no distribution is supposed).

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, ensure};
use harness::{
    Sandbox,
    mpi::{self, Library},
};

/// What the program prints, in its order, and the start.
const MEASURED: [&str; 5] = [
    "ping-pong, 8 bytes",
    "ping-pong, 1 MiB",
    "allreduce, 8 bytes",
    "allreduce, 1 MiB",
    "mpirun of a program that does nothing else",
];

/// Goal: at most 2 % more.
pub(crate) fn run(rounds: usize) -> anyhow::Result<()> {
    for library in [Library::OpenMpi, Library::Mpich] {
        if !library.is_missing() {
            one(library, rounds)?;
        }
    }
    Ok(())
}

fn one(library: Library, rounds: usize) -> anyhow::Result<()> {
    let sandbox = Sandbox::new();
    let program = mpi::compile(&sandbox, library, "builder/xtask/src/bench/mpi.c".as_ref(), "messages");
    let nothing = mpi::compile(&sandbox, library, "builder/xtask/src/bench/mpi_nothing.c".as_ref(), "nothing");
    let bundle = mpi::bundle(&sandbox, library, &[&program, &nothing]);
    let launch = |program: &[&Path]| {
        let mut command = sandbox.command(library.mpirun());
        let bind = if library == Library::OpenMpi { "--bind-to" } else { "-bind-to" };
        command.args([bind, "core"]);
        command.args(["-n", "2"]).args(program);
        command
    };
    for engine in ["namespaces", "preload", "ptrace"] {
        let option = format!("--coracle-engine={engine}");
        let (entrypoint, option) = (Path::new("--coracle-entrypoint="), Path::new(&option));
        let inside = |program: &Path| launch(&[&bundle, option, entrypoint, program]);
        let mut ratios: [Vec<f64>; 5] = Default::default();
        let mut native: [Vec<f64>; 5] = Default::default();
        // The first round unpacks, and warms what is to be warm.
        for round in 0..=rounds {
            let one = |bundled: bool| -> anyhow::Result<[f64; 5]> {
                let command = |program: &Path| if bundled { inside(program) } else { launch(&[program]) };
                let text = output(command(&program))?;
                let figures: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
                let [a, b, c, d] = figures[..] else { anyhow::bail!("the program printed {text:?}") };
                let begin = Instant::now();
                output(command(&nothing))?;
                Ok([a, b, c, d, begin.elapsed().as_secs_f64() * 1e9])
            };
            let (with, without) = if round % 2 == 0 {
                let with = one(true)?;
                (with, one(false)?)
            } else {
                let without = one(false)?;
                (one(true)?, without)
            };
            if round > 0 {
                for at in 0..MEASURED.len() {
                    ratios[at].push(with[at] / without[at]);
                    native[at].push(without[at]);
                }
            }
        }
        println!("\n{}, 2 ranks, engine {engine} ({rounds} rounds, interleaved pairs)", library.mpirun());
        println!("{:<46} {:>12} {:>8} {:>17}", "", "native", "ratio", "95 % of medians");
        for ((name, ratios), native) in MEASURED.iter().zip(&mut ratios).zip(&mut native) {
            let (low, high) = interval(ratios);
            println!("{name:<46} {:>9.2} µs {:>8.3} {low:>8.3} – {high:>6.3}", median(native) / 1e3, median(ratios));
        }
    }
    Ok(())
}

fn output(mut command: Command) -> anyhow::Result<String> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| shown.clone())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{shown}: {}: {said}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

/// Between which of the sorted values the median of all that could be measured lies, in 95 of 100 cases: as many values are
/// left out at each end as a fair coin, thrown that many times, shows heads at most, in 2.5 of 100 cases.
fn interval(values: &mut [f64]) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let count = values.len();
    let (mut out, mut term, mut sum) = (0, 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX)), 0.0);
    for heads in 0..count / 2 {
        sum += term;
        if sum > 0.025 {
            break;
        }
        out = heads + 1;
        #[expect(clippy::cast_precision_loss, reason = "a few dozen rounds")]
        {
            term *= (count - heads) as f64 / (heads + 1) as f64;
        }
    }
    let out = out.saturating_sub(1);
    (values[out], values[count - 1 - out])
}

#[cfg(test)]
mod tests {
    use super::interval;

    #[test]
    fn the_interval_is_that_of_tables() {
        // Of 20 sorted values the 6th and the 15th, of 30 the 10th and the 21st, of 5 the whole.
        for (count, low, high) in [(20, 6.0, 15.0), (30, 10.0, 21.0), (5, 1.0, 5.0)] {
            let mut values: Vec<f64> = (1..=count).map(f64::from).collect();
            assert_eq!(interval(&mut values), (low, high), "{count}");
        }
    }
}
