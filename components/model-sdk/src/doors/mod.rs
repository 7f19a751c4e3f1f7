//! The doors: the interfaces through which the host calls the component.

mod background;
mod fast;
mod standard;

use std::marker::PhantomData;

/// What [`export!`](crate::export) exports.
#[doc(hidden)]
#[derive(Debug)]
pub struct Doors<M>(PhantomData<M>);
