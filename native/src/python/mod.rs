//! The extension module `gateway._native`.

use pyo3::prelude::*;

mod call;
mod copy;
mod load;
mod read;
mod server;

/// Return how the extension was compiled: `release` or `debug`.
#[pyfunction]
fn build_profile() -> &'static str {
    if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    }
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(build_profile, module)?)?;
    copy::register(module)?;
    load::register(module)?;
    read::register(module)?;
    server::register(module)?;
    Ok(())
}
