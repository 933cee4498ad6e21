//! The program inside the demo's image: it greets, and tells what it finds around it.

use std::{env, fs, path::Path};

fn main() {
    let greeting = fs::read_to_string("/usr/share/hello/greeting").expect("the image holds a greeting");
    let whom = env::args().nth(1).unwrap_or_else(|| "world".to_owned());
    let from = env::var("HELLO_FROM").expect("the image sets HELLO_FROM");
    println!("{greeting}, {whom}, from {from}!");
    let draft = if Path::new("/usr/share/hello/draft").exists() { "still here" } else { "gone" };
    println!("the draft of the lower layer is {draft}");
}
