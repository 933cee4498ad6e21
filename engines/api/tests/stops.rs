//! A process that stops with its guest stops once, also when the terminal's signal waits for it already.

use coracle_api::stops;

#[test]
fn a_signal_that_waits_already_stops_once() {
    // SAFETY: the child makes no call that needs another thread (those of `stop_with` open a file and send signals) and
    // ends by _exit; the sets are initialised before use; waitpid writes one int.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            // A group of its own whose parent is in the same session: not orphaned, or stops would be ignored.
            libc::setpgid(0, 0);
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGTSTP);
            libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            libc::kill(libc::getpid(), libc::SIGTSTP);
            stops::stop_with(libc::getpid(), libc::SIGTSTP);
            libc::_exit(7);
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, libc::WUNTRACED), child);
        assert!(libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGTSTP, "{status:#x}");
        libc::kill(child, libc::SIGCONT);
        assert_eq!(libc::waitpid(child, &raw mut status, libc::WUNTRACED), child);
        let ended = libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7;
        if !ended {
            libc::kill(child, libc::SIGKILL);
        }
        assert!(ended, "it stopped again: {status:#x}");
    }
}
