"""dnswatch - whether DNS vouches for the pools: blocklists, reverse names, SPF, DKIM keys, DMARC."""
