package usb

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"io"
)

// builtIn is the table of names of USB, packed (usbids/LICENSE says whose). gousb
// has one of 2017, which it unpacks into 3.5 MB at the start of every program that
// knows of it, each command and each canary included.
//
//go:embed usbids/usb.ids.gz
var builtIn []byte

// builtInNames looks an id up in our table, which takes some ms.
func builtInNames(id ids) foundNames {
	z, err := gzip.NewReader(bytes.NewReader(builtIn))
	if err != nil {
		return foundNames{} // a test reads it
	}
	return findNames(io.LimitReader(z, maxTable), id)
}
