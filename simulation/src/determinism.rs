//! What a world asks of its machine: random bytes, the time, how many processors there are. On a world's thread the answers are the world's own,
//! so that nothing of the machine gets in: no seed of a hash table, no jitter, no clock of the wall.
//!
//! Three functions of the C library are stood in for; the linker prefers those of the program. On every other thread they do what they always
//! do. This is the only place with `unsafe` in the crate.
#![allow(unsafe_code, reason = "stands in for functions of the C library, so that code that is not ours replays too")]

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

/// The world's beginning on the wall: milliseconds since 1970.
pub const BEGAN_MS: u64 = 1_760_000_000_000;

#[derive(Debug, Clone, Copy)]
struct World {
    random: u64,
    now_ms: u64,
}

thread_local!(static WORLD: Cell<Option<World>> = const { Cell::new(None) });

/// This thread is a world from now on, until it ends.
pub fn enter(seed: u64) {
    WORLD.set(Some(World { random: seed ^ 0x6465_7465_726d_696e, now_ms: 0 }));
}

/// What time it is in this thread's world: milliseconds since it began.
pub fn tell_time(now_ms: u64) {
    WORLD.set(WORLD.get().map(|world| World { now_ms, ..world }));
}

fn bits() -> Option<u64> {
    let mut world = WORLD.get()?;
    world.random = world.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    WORLD.set(Some(world));
    let z = (world.random ^ (world.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Some(z ^ (z >> 31))
}

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// The C library's own function of this name.
fn next(known: &OnceLock<usize>, name: &CStr) -> usize {
    // the handle -1 means: behind this program
    // SAFETY: the name ends with 0, and dlsym has no other preconditions
    *known.get_or_init(|| unsafe { dlsym(std::ptr::without_provenance_mut(usize::MAX), name.as_ptr()) } as usize)
}

/// `getrandom(2)`.
///
/// # Safety
/// As in C: `len` bytes from `buffer` on may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, len: usize, flags: c_uint) -> isize {
    static KNOWN: OnceLock<usize> = OnceLock::new();
    if WORLD.get().is_none() {
        let real = next(&KNOWN, c"getrandom");
        // SAFETY: the C library's function of this name has this signature; the caller keeps its promises
        return unsafe {
            std::mem::transmute::<usize, unsafe extern "C" fn(*mut c_void, usize, c_uint) -> isize>(real)(buffer, len, flags)
        };
    }
    // SAFETY: the caller says so
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), len) };
    for chunk in bytes.chunks_mut(8) {
        let random = bits().unwrap_or_default().to_le_bytes();
        chunk.copy_from_slice(&random[..chunk.len()]);
    }
    len.cast_signed()
}

/// `struct timespec` of 64-bit Linux.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

/// `clock_gettime(2)`: every clock of a world shows the same time.
///
/// # Safety
/// As in C: `time` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int {
    static KNOWN: OnceLock<usize> = OnceLock::new();
    let Some(world) = WORLD.get() else {
        let real = next(&KNOWN, c"clock_gettime");
        // SAFETY: as above
        return unsafe { std::mem::transmute::<usize, unsafe extern "C" fn(c_int, *mut Timespec) -> c_int>(real)(clock, time) };
    };
    let ms = BEGAN_MS + world.now_ms;
    // SAFETY: the caller says so
    unsafe { *time = Timespec { seconds: (ms / 1000).cast_signed(), nanoseconds: (ms % 1000 * 1_000_000).cast_signed() } };
    0
}

/// `sched_getaffinity(2)`: a world has one processor, so that tables that are cut by processors are cut alike everywhere.
///
/// # Safety
/// As in C: `size` bytes from `mask` on may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sched_getaffinity(pid: c_int, size: usize, mask: *mut c_void) -> c_int {
    static KNOWN: OnceLock<usize> = OnceLock::new();
    if WORLD.get().is_none() {
        let real = next(&KNOWN, c"sched_getaffinity");
        // SAFETY: as above
        return unsafe {
            std::mem::transmute::<usize, unsafe extern "C" fn(c_int, usize, *mut c_void) -> c_int>(real)(pid, size, mask)
        };
    }
    // SAFETY: the caller says so
    let bytes = unsafe { std::slice::from_raw_parts_mut(mask.cast::<u8>(), size) };
    bytes.fill(0);
    bytes[0] = 1;
    0
}
