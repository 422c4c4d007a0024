//! What goes when the extension goes.

use pgrx::pg_sys::{self, Oid};

/// Makes an object of the catalogue `class` go with the extension, as `DEPENDS ON EXTENSION` does for the kinds of
/// objects that have it.
pub fn depend_on_extension(class: Oid, object: Oid) {
    let address = |class_id, object_id| pg_sys::ObjectAddress {
        classId: class_id,
        objectId: object_id,
        objectSubId: 0,
    };
    // SAFETY: both addresses outlive the call; what they name was looked up in this transaction.
    unsafe {
        let extension = pg_sys::get_extension_oid(c"plimsoll".as_ptr(), false);
        pg_sys::recordDependencyOn(
            &address(class, object),
            &address(pg_sys::ExtensionRelationId, extension),
            pg_sys::DependencyType::DEPENDENCY_AUTO_EXTENSION,
        );
    }
}
