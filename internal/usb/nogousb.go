//go:build !(linux && cgo)

package usb

import (
	"context"
	"errors"
)

// describe needs libusb, and that cgo: what sysfs says is all there is.
func describe(context.Context, int, int, descriptors) (texts, error) {
	return texts{}, errors.ErrUnsupported
}
