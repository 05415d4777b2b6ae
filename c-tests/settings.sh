# To be sourced: writes the settings of a test's host.
#
#   settings HOST     writes HOST.conf, for the drives d0, d1 and d2 in the folder $DRIVES
#
# With $SG they are SCSI disks (disks.sh).
settings() {
	mkdir -p "$1.state"
	cat >"$1.conf" <<END
lease_ms = 20000
state_dir = "$1.state"
[global]
drives = ["/dev/idm0", "/dev/idm1", "/dev/idm2"]
END
	[ -z "${SG:-}" ] || return 0
	cat >>"$1.conf" <<END
[emulator]
"/dev/idm0" = "$DRIVES/d0.sock"
"/dev/idm1" = "$DRIVES/d1.sock"
"/dev/idm2" = "$DRIVES/d2.sock"
END
}
