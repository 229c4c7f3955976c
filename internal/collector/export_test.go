package collector

import "sekisho/internal/store"

// DecodeDelivery is what a handler does with a body.
func DecodeDelivery(b []byte) (store.Delivery, error) {
	d, err := decodeBatch(b)
	if err != nil {
		return store.Delivery{}, err
	}
	return delivery(d, "agent")
}
