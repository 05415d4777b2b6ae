//! The lvm.conf of a host that has no udev.

/// The text of a configuration for lvm with lvmlockd. lvm uses the block devices whose names match
/// one of the regular expressions in `accept`. `global` has further whole lines for that section.
pub fn lvm_conf(accept: &[String], global: &str) -> String {
    let accept: String = accept.iter().map(|name| format!("\"a|{name}|\", ")).collect();
    let global: String = global.lines().map(|line| format!("\t{line}\n")).collect();
    format!(
        r#"devices {{
	dir = "/dev"
	scan = [ "/dev" ]
	use_devicesfile = 0
	obtain_device_list_from_udev = 0
	external_device_info_source = "none"
	multipath_component_detection = 0
	md_component_detection = 0
	scan_lvs = 1
	global_filter = [ {accept}"r|.*|" ]
}}
activation {{
	udev_sync = 0
	udev_rules = 0
	monitoring = 0
}}
backup {{
	backup = 0
	archive = 0
}}
global {{
	use_lvmlockd = 1
	event_activation = 0
{global}}}
"#
    )
}
