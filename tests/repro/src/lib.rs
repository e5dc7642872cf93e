//! Whether the same source gives the same images: they are built under variations of what should not matter, and compared.
//!
//! | module | what |
//! | --- | --- |
//! | [`variation`] | what is varied: one function each, which changes a [`build::Build`] |
//! | [`inputs`] | what variations need: copies of toolchain and crates, Xen's headers and libclang of other releases |
//! | [`build`] | one build: its environment, its namespaces, its images |
//! | [`run`] | builds with all variations at once; when the images differ, narrows it down |
//! | [`narrow`] | finds the fewest of many that make a difference |
//! | [`difference`] | where two images differ |
//! | [`traces`] | what a machine could leave in an image: paths, names, times; searched for |
//! | [`plant`] | differences made on purpose, to see that they are found |

pub mod build;
pub mod difference;
pub mod inputs;
pub mod narrow;
pub mod plant;
pub mod run;
pub mod traces;
pub mod variation;
