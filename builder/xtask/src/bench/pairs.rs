//! Ratios of pairs: in each round all take their turn, in another order, and each time is divided by the native one of its
//! round.
//!
//! Shown are the median of these ratios and the interval in which it lies with a confidence of 95 %; a second native run
//! says what the machine's own noise is. So what a round was disturbed by disturbs few ratios, and no mean.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use super::peers::Way;

/// Fewer rounds say nothing.
const LEAST_ROUNDS: usize = 20;

/// Those of the ways that are compared here, by their names.
pub(crate) fn named<'w, 'a>(ways: &'w [Way<'a>], names: &[&str]) -> Vec<&'w Way<'a>> {
    ways.iter().filter(|way| names.contains(&way.name)).collect()
}

/// Lets the ways run a program for `rounds` rounds after one unmeasured round, and prints a table. After `limit` no more
/// rounds are begun, if there were enough: who asked for too many has a result all the same.
pub(crate) fn compare(
    title: &str,
    rounds: usize,
    limit: Duration,
    ways: &[&Way<'_>],
    program: &[&str],
) -> anyhow::Result<()> {
    // The first native run of a round is what the others, and the second, are divided by.
    let native = ways.iter().find(|way| way.name == "native").context("there is nothing to compare with")?;
    let mut turns: Vec<(&str, &Way<'_>)> = vec![("native", native), ("native again", native)];
    turns.extend(ways.iter().filter(|way| way.name != "native").map(|way| (way.name, *way)));
    // Not all that show the tree can do this much with it. This round also reads files for the others.
    turns.retain(|(name, way)| match time(name, way, program) {
        Err(error) if *name != "native" => {
            println!("left out: {error:#}");
            false
        }
        _ => true,
    });
    let mut ratios = vec![Vec::new(); turns.len()];
    let mut natives = Vec::new();
    let begin = Instant::now();
    for round in 0..rounds {
        if round >= LEAST_ROUNDS && begin.elapsed() > limit {
            break;
        }
        let mut times = vec![0.0; turns.len()];
        for turn in 0..turns.len() {
            let who = (turn + round) % turns.len();
            times[who] = time(turns[who].0, turns[who].1, program)?;
        }
        natives.push(times[0]);
        ratios.iter_mut().zip(&times).for_each(|(ratios, time)| ratios.push(time / times[0]));
    }
    natives.sort_by(f64::total_cmp);
    let (_, seconds, _) = median(&natives).context("no rounds")?;
    println!("\n{title} ({} interleaved rounds, native {seconds:.2} s)", natives.len());
    println!("{:<24} {:>8} {:>23}", "", "ratio", "95 % of its median");
    if natives.len() < LEAST_ROUNDS {
        println!("fewer than {LEAST_ROUNDS} rounds: for a look at it, not a figure");
    }
    for ((name, _), mut ratios) in turns.iter().zip(ratios).skip(1) {
        ratios.sort_by(f64::total_cmp);
        let (low, middle, high) = median(&ratios).context("no rounds")?;
        println!("{name:<24} {middle:>8.3} {low:>10.3} – {high:>10.3}");
    }
    Ok(())
}

fn time(name: &str, way: &Way<'_>, program: &[&str]) -> anyhow::Result<f64> {
    let mut command = (way.prefix)();
    command.args(program).stdin(Stdio::null()).stdout(Stdio::null());
    let begin = Instant::now();
    let status = command.status().with_context(|| format!("{name} cannot be started"))?;
    ensure!(status.success(), "{name} failed: {status}");
    Ok(begin.elapsed().as_secs_f64())
}

/// The median of what is sorted, between the two values that hold the true one with a confidence of at least 95 %: how many
/// of n values lie below the true median is a matter of n tosses of a coin.
fn median(sorted: &[f64]) -> Option<(f64, f64, f64)> {
    let count = sorted.len();
    let middle = *sorted.get(count / 2)?;
    let middle = if count.is_multiple_of(2) { f64::midpoint(middle, sorted[count / 2 - 1]) } else { middle };
    // The chance that at most so many tosses of `count` are heads, for more and more of them.
    let (mut chance, mut all, mut outside) = (0.5_f64.powi(i32::try_from(count).ok()?), 0.0, 0);
    for heads in 0..count {
        all += chance;
        if all > 0.025 {
            break;
        }
        outside = heads + 1;
        #[expect(clippy::cast_precision_loss, reason = "as many rounds as anybody waits for")]
        let next = (count - heads) as f64 / (heads + 1) as f64;
        chance *= next;
    }
    let low = outside.saturating_sub(1);
    Some((sorted[low], middle, sorted[count - 1 - low]))
}

#[cfg(test)]
mod tests {
    use super::median;

    /// As tables of the sign test have it.
    #[test]
    fn the_interval_is_that_of_the_sign_test() {
        for (count, low) in [(6, 1), (10, 2), (20, 6), (25, 8), (30, 10)] {
            let sorted: Vec<f64> = (1..=count).map(f64::from).collect();
            let expected = (f64::from(low), f64::from(count + 1) / 2.0, f64::from(count + 1 - low));
            assert_eq!(median(&sorted), Some(expected), "{count}");
        }
        assert_eq!(median(&[]), None);
    }
}
