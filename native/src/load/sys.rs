//! The three system calls that the standard library lacks.

use std::io;
use std::time::Duration;

/// Wait until one of the descriptors is ready or the time is over, to the nanosecond: a runtime's timers tick in
/// milliseconds, which would bunch the arrivals of an open loop.
pub(super) fn wait(descriptors: &mut [libc::pollfd], limit: Duration) -> io::Result<()> {
    let time = libc::timespec {
        tv_sec: limit.as_secs() as libc::time_t,
        tv_nsec: libc::c_long::from(limit.subsec_nanos()),
    };
    // SAFETY: pointer and count are of one live slice, `time` outlives the call, and a null mask is allowed.
    let count = unsafe {
        libc::ppoll(descriptors.as_mut_ptr(), descriptors.len() as libc::nfds_t, &time, std::ptr::null())
    };
    if count < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
        descriptors.iter_mut().for_each(|each| each.revents = 0);
    }
    Ok(())
}

/// Let this thread's waits end when they should and not up to 50 us later, where the system can.
pub(super) fn wake_exactly() {
    // SAFETY: takes numbers only, and changes nothing but this thread's timers.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
}

/// The processor time of this thread.
pub(super) fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live timespec for the call to fill.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
