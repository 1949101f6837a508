//! The `#[agent]` attribute of `dist-agent`; see its documentation there.

mod expand;
mod model;
mod serde_impls;

use proc_macro::TokenStream;

/// Makes an agent of a plain `impl`: see the documentation of `dist_agent::agent`.
#[proc_macro_attribute]
pub fn agent(options: TokenStream, item: TokenStream) -> TokenStream {
    let expanded = syn::parse(item)
        .and_then(|item| model::Model::parse(options.into(), item))
        .map(|model| expand::expand(&model));
    expanded.unwrap_or_else(|error| error.to_compile_error()).into()
}
