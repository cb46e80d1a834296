//! One request leaves nothing for the next, and nothing for those that run beside it.

mod children;
mod leftovers;
mod sessions;
mod sites;
