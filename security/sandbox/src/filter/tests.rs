//! The compiled programs against the policy they come from: a small interpreter runs them on
//! every derived try and on random calls, and the policy's own reading is the reference.

use proptest::prelude::*;
use seccompiler::sock_filter;

use super::*;
use crate::attempt;
use crate::policy::{ARGUMENTS, NAMES, Step, Verdict, syscalls};

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const AUDIT_ARCH_AARCH64: u32 = 0xc000_00b7;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;

const OWN_ARCH: u32 =
    if cfg!(target_arch = "x86_64") { AUDIT_ARCH_X86_64 } else { AUDIT_ARCH_AARCH64 };

/// What a program answers to one call; the instructions are those that seccompiler makes.
fn run(program: &[sock_filter], arch: u32, number: u32, arguments: &[u64; ARGUMENTS]) -> u32 {
    let word = |offset: u32| match offset {
        0 => number,
        4 => arch,
        _ => {
            assert!((16..64).contains(&offset) && offset.is_multiple_of(4), "offset {offset}");
            let argument = arguments[(offset as usize - 16) / 8];
            if offset.is_multiple_of(8) { argument as u32 } else { (argument >> 32) as u32 }
        }
    };
    let (mut accumulator, mut at) = (0_u32, 0_usize);
    loop {
        let step = &program[at];
        let jump = |taken: bool| at + 1 + usize::from(if taken { step.jt } else { step.jf });
        at = match step.code {
            0x20 => {
                accumulator = word(step.k);
                at + 1
            }
            0x54 => {
                accumulator &= step.k;
                at + 1
            }
            0x05 => at + 1 + step.k as usize,
            0x15 => jump(accumulator == step.k),
            0x25 => jump(accumulator > step.k),
            0x35 => jump(accumulator >= step.k),
            0x06 => return step.k,
            other => panic!("instruction {other:#x} at {at}"),
        };
    }
}

/// What the kernel does with several filters: the strictest action wins, and between equals the
/// newest filter's.
fn stack(programs: &[&BpfProgram], number: u32, arguments: &[u64; ARGUMENTS]) -> u32 {
    let rank = |answer: u32| (answer & libc::SECCOMP_RET_ACTION_FULL).cast_signed();
    let answers = programs.iter().rev().map(|program| run(program, OWN_ARCH, number, arguments));
    answers.reduce(|best, next| if rank(next) < rank(best) { next } else { best }).unwrap()
}

fn answer(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Allowed => libc::SECCOMP_RET_ALLOW,
        Verdict::Refused(errno) => libc::SECCOMP_RET_ERRNO | errno.cast_unsigned(),
    }
}

fn steps(programs: &Programs) -> [(Step, Vec<&BpfProgram>); 2] {
    let confine: Vec<_> = programs.confine.iter().collect();
    let both = confine.iter().copied().chain([&programs.lock_down]).collect();
    [(Step::Confine, confine), (Step::LockDown, both)]
}

#[test]
fn every_derived_try_gets_the_policys_answer() {
    for name in NAMES {
        let policy = Policy::named(name).unwrap();
        let programs = compile(&policy).unwrap();
        for (step, stacked) in steps(&programs) {
            let attempts = attempt::derive(&policy, step);
            assert!(attempts.len() > 100, "{name} {step:?}: {}", attempts.len());
            for attempt in attempts {
                let (number, arguments) = attempt.call();
                let found = stack(&stacked, u32::try_from(number).unwrap(), &arguments);
                assert_eq!(found, answer(attempt.expected), "{name} {step:?} {attempt:?}");
            }
        }
    }
}

#[test]
fn calls_of_another_architecture_kill() {
    for name in NAMES {
        let programs = compile(&Policy::named(name).unwrap()).unwrap();
        let compiled = programs.confine.last().unwrap();
        for program in [compiled, &programs.lock_down] {
            let getpid = run(program, AUDIT_ARCH_I386, 20, &[0; ARGUMENTS]);
            assert_eq!(getpid, libc::SECCOMP_RET_KILL_PROCESS);
        }
        if cfg!(target_arch = "x86_64") {
            let x32_getpid = 0x4000_0000 | 39;
            let all: Vec<_> = programs.confine.iter().collect();
            let found = stack(&all, x32_getpid, &[0; ARGUMENTS]);
            assert_eq!(found, libc::SECCOMP_RET_KILL_PROCESS);
        }
    }
}

#[test]
fn a_program_stays_well_below_the_kernels_limit() {
    for name in NAMES {
        let programs = compile(&Policy::named(name).unwrap()).unwrap();
        let longest = programs.confine.iter().chain([&programs.lock_down]).map(Vec::len).max();
        assert!(longest.unwrap() < 2_048, "{name}: {longest:?} of 4096 instructions");
    }
}

/// Arguments near the edges that conditions have, beside random ones.
fn argument() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        (0_u64..64),
        (0_u32..64).prop_map(|bit| 1 << bit),
        Just(u64::from(std::process::id())),
        Just(1 << 32),
        Just(u64::MAX),
        Just(libc::CLONE_VM as u64 | libc::CLONE_THREAD as u64 | libc::CLONE_SIGHAND as u64),
    ]
}

proptest! {
    #[test]
    fn random_calls_get_the_policys_answer(
        at in any::<prop::sample::Index>(),
        arguments in prop::array::uniform6(argument()),
    ) {
        let numbers: Vec<_> = syscalls::all().filter_map(|syscall| syscall.number).collect();
        let number = *at.get(&numbers);
        for name in NAMES {
            let policy = Policy::named(name).unwrap();
            let programs = compile(&policy).unwrap();
            for (step, stacked) in steps(&programs) {
                let found = stack(&stacked, u32::try_from(number).unwrap(), &arguments);
                let expect = answer(policy.verdict(step, number, &arguments));
                prop_assert_eq!(found, expect, "{} {:?} {} {:x?}", name, step, number, arguments);
            }
        }
    }
}
