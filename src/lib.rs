//! The Plimsoll extension.
::pgrx::pg_module_magic!();
