//! Every folder of `examples/` is run as its README says, and prints what it promises.

use std::fs;

use harness::{Sandbox, coracle, hello, images::workspace};

#[test]
fn hello() {
    let mut sandbox = Sandbox::new();
    hello::write_image(&sandbox.work("hello.oci"));
    sandbox.set("PATH", format!("{}:/usr/bin:/bin", coracle().parent().unwrap().display()));
    let example = workspace().join("examples/hello");
    // The workspace may lie where only its owner can read.
    let script = sandbox.write("run.sh", fs::read(example.join("run.sh")).unwrap());
    let output = sandbox.run("sh", [script.as_os_str(), "hello.oci".as_ref()]);
    let expected = fs::read_to_string(example.join("expected.txt")).unwrap();
    assert_eq!(output.ok(), expected.trim_end(), "{output}");
}
