//! Loom's atomics, sequentially consistent. Loom takes `SeqCst` for `AcqRel` except in fences, so each operation stands between
//! fences; that makes the same orders possible as sequentially consistent operations do, as long as there are no others.

use loom::sync::atomic::{self, fence};
pub(crate) use std::sync::atomic::Ordering;

fn sequential(order: Ordering) {
    assert_eq!(order, Ordering::SeqCst, "the model knows no other order");
    fence(Ordering::SeqCst);
}

macro_rules! atomic {
    ($name:ident, $value:ty, $($method:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        #[derive(Debug, Default)]
        pub(crate) struct $name(atomic::$name);

        impl $name {
            $(pub(crate) fn $method(&self, $($argument: $type,)* order: Ordering) -> $result {
                sequential(order);
                let result = self.0.$method($($argument,)* order);
                sequential(order);
                result
            })*
        }
    };
}

/// Of a compare-exchange, the order in case of a failure is no part of [`atomic`]'s pattern.
macro_rules! exchange {
    ($name:ident, $value:ty) => {
        impl $name {
            pub(crate) fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                assert_eq!(failure, Ordering::SeqCst);
                sequential(success);
                let result = self.0.compare_exchange(current, new, success, failure);
                sequential(success);
                result
            }
        }
    };
}

atomic!(AtomicBool, bool, load() -> bool; store(value: bool) -> (); swap(value: bool) -> bool;);
atomic!(AtomicU32, u32, load() -> u32; store(value: u32) -> (); swap(value: u32) -> u32;);
atomic!(AtomicI32, i32, load() -> i32; store(value: i32) -> (); fetch_add(value: i32) -> i32; fetch_sub(value: i32) -> i32;);
atomic!(AtomicU64, u64, load() -> u64; store(value: u64) -> (););
exchange!(AtomicU32, u32);
exchange!(AtomicU64, u64);
exchange!(AtomicI32, i32);

impl AtomicI32 {
    pub(crate) fn fetch_update(
        &self,
        success: Ordering,
        failure: Ordering,
        mut update: impl FnMut(i32) -> Option<i32>,
    ) -> Result<i32, i32> {
        let mut old = self.load(failure);
        while let Some(new) = update(old) {
            match self.compare_exchange(old, new, success, failure) {
                Ok(old) => return Ok(old),
                Err(now) => old = now,
            }
        }
        Err(old)
    }
}
